"""The scripts of the development cluster on a machine that is imitated: they must not hurt a SLURM that is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "launch" / "devcluster"
BUSY = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (unattended-upgr)"
SERVICES = ("munge", "slurmctld", "slurmd", "slurmdbd")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="the folder of the cluster must belong to root")


class Machine:
    """The files and commands of a machine, below a folder; every call of a command is logged.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.home = folder / "home"
        self.log = folder / "calls"
        for name in ("proc", "etc", "usr/bin", "usr/sbin", "opt"):
            (self.root / name).mkdir(parents=True)
        self.command("id", "echo 0")
        self.command("dpkg-query", "exit 1")
        self.command("apt-get", 'echo "E: the network is down"; exit 100')
        for name in ("systemctl", "deb-systemd-helper", "update-rc.d", "scancel"):
            self.command(name, "exit 0")
        for name in ("scontrol", "sinfo", "sacctmgr", "squeue", "munge"):
            self.command(name, "exit 1")

    def command(self, name: str, script: str, folder: str = "usr/bin") -> Path:
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $* SLURM_CONF=${{SLURM_CONF:-}}" >>{self.log}\n{script}\n')
        path.chmod(0o755)
        return path

    def running(self, name: str, pid: int = 77, *, is_own: bool = False) -> None:
        """Let a daemon run that the script has started, or not."""
        (self.root / "proc" / str(pid)).mkdir()
        (self.root / "proc" / str(pid) / "comm").write_text(f"{name}\n")
        if is_own:
            (self.home / "run").mkdir(parents=True, exist_ok=True)
            (self.home / "run" / f"{name}.pid").write_text(f"{pid}\n")

    def answering(self) -> None:
        """Let the development cluster run."""
        self.command("scontrol", '[ "$1" = ping ] && echo "Slurmctld(primary) at localhost is UP"')
        self.command("sinfo", "echo n1")
        self.command("sacctmgr", "echo devcluster")
        self.running("slurmdbd", is_own=True)

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.root / 'usr/bin'}:{os.environ['PATH']}"
        environment = {
            "PATH": path,
            "AOT_DEVCLUSTER": str(self.home),
            "AOT_DEVCLUSTER_ROOT": str(self.root),
            **variables,
        }
        return subprocess.run(
            ["bash", str(SCRIPTS / script), *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def calls(self, name: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(f"{name} ")]

    def files(self) -> set[str]:
        return {str(path) for path in (*self.root.rglob("*"), *self.home.rglob("*"))}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def foreign_file(name: str) -> tuple[str, str]:
    return name, f"{name} was not written by this script"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        foreign_file("/etc/slurm/slurm.conf"),
        foreign_file("/etc/slurm/topology.conf"),
        foreign_file("/etc/slurm-llnl/slurm.conf"),
        foreign_file("/opt/slurm/etc/slurm.conf"),
        foreign_file("/usr/local/etc/slurm.conf"),
        foreign_file("/run/slurm/conf/slurm.conf"),
        ("/opt/slurm/bin/scontrol", "/opt/slurm/bin/scontrol is not from Debian's packages"),
    ],
)
def test_machine_with_a_slurm_is_not_touched(machine: Machine, path: str, message: str) -> None:
    file = machine.root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("ClusterName=production\n")
    before = machine.files()
    ended = machine.run("up.sh")
    assert ended.returncode == 1
    assert f"{machine.root}{message}, so this machine has a SLURM already; nothing was changed" in ended.stderr
    assert machine.files() == before
    assert machine.calls("apt-get") == []


def test_configuration_that_the_environment_names_is_respected(machine: Machine, tmp_path: Path) -> None:
    config = tmp_path / "site.conf"
    config.write_text("ClusterName=production\n")
    ended = machine.run("up.sh", SLURM_CONF=str(config))
    assert ended.returncode == 1
    assert f"SLURM_CONF={config} was not written by this script" in ended.stderr


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd", "slurmdbd", "sackd"])
def test_running_daemons_of_others_are_noticed(machine: Machine, daemon: str) -> None:
    machine.running(daemon, 4711)
    before = machine.files()
    ended = machine.run("up.sh")
    assert ended.returncode == 1
    assert f"process 4711 is a {daemon} that this script has not started" in ended.stderr
    assert machine.files() == before


def test_client_without_a_configuration_file_is_noticed(machine: Machine) -> None:
    """A configless client finds its controller by DNS; it must not be asked about our own configuration."""
    machine.command("scontrol", '[ -z "$SLURM_CONF" ] && [ "$1" = show ] && echo "ClusterName = production"')
    ended = machine.run("up.sh")
    assert ended.returncode == 1
    assert "scontrol answers for the cluster production" in ended.stderr
    assert machine.calls("apt-get") == []


def test_scontrol_elsewhere_in_the_path_is_noticed(machine: Machine, tmp_path: Path) -> None:
    other = machine.command("scontrol", "exit 1", folder="sw/slurm/bin")
    ended = machine.run("up.sh", PATH=f"{other.parent}:{machine.root / 'usr/bin'}:{os.environ['PATH']}")
    assert ended.returncode == 1
    assert f"{other} is not from Debian's packages" in ended.stderr


@as_root
def test_machine_without_slurm_gets_it(machine: Machine) -> None:
    ended = machine.run("up.sh")
    assert ended.returncode == 1
    assert f"apt-get failed; see {machine.home}/log/apt.log" in ended.stderr
    assert not (machine.root / "usr/sbin/policy-rc.d").exists(), "it keeps services from starting only meanwhile"
    assert not (machine.root / "etc/slurm").exists()


@as_root
def test_another_apt_is_waited_for_and_no_service_starts_at_boot(machine: Machine) -> None:
    machine.answering()
    machine.command(
        "apt-get",
        f'count={machine.root}/count; echo x >>$count\n'
        f'[ -x {machine.root}/usr/sbin/policy-rc.d ] || exit 100\n'
        f'[ $(wc -l <$count) -gt 1 ] || {{ echo "{BUSY}"; exit 100; }}',
    )  # fmt: skip
    ended = machine.run("up.sh")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("waiting until another apt or dpkg has ended") == 1
    assert "devcluster: running" in ended.stdout
    assert {call.split()[1].partition(".")[0] for call in machine.calls("deb-systemd-helper")} == {"disable"}
    for service in SERVICES:
        assert f"deb-systemd-helper disable {service}.service" in "\n".join(machine.calls("deb-systemd-helper"))
        assert f"update-rc.d -f {service} remove" in "\n".join(machine.calls("update-rc.d"))
    assert set((machine.home / "installed-packages").read_text().split()) > set(SERVICES)
    assert not (machine.root / "usr/sbin/policy-rc.d").exists()


@as_root
def test_apt_that_stays_busy_is_reported(machine: Machine) -> None:
    machine.command("apt-get", f'echo "{BUSY}"; exit 100')
    ended = machine.run("up.sh", AOT_DEVCLUSTER_APT_SECONDS="0")
    assert ended.returncode == 1
    assert "another apt or dpkg has been busy for 0 s; run this script again later" in ended.stderr


@as_root
def test_services_that_were_installed_before_are_left_as_they_are(machine: Machine) -> None:
    machine.answering()
    machine.command("dpkg-query", "echo ii")
    assert machine.run("up.sh").returncode == 0
    assert machine.calls("update-rc.d") == machine.calls("apt-get") == []


@as_root
def test_cluster_without_accounting_does_not_count_as_running(machine: Machine) -> None:
    machine.answering()
    machine.command("dpkg-query", "echo ii")
    shutil.rmtree(machine.root / "proc" / "77")  # slurmdbd has died
    machine.command("munge", "exit 1")
    machine.command("su", 'echo "no munged here" >&2; exit 9')
    socket = Path("/run/munge/munge.socket.2")
    is_there = socket.exists()
    ended = machine.run("up.sh")
    assert socket.exists() == is_there, "the machine on which the test runs is not touched"
    assert "devcluster: running" not in ended.stdout
    assert ended.returncode == 9, "it starts what is missing"


@as_root
def test_folder_that_others_may_have_prepared_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.home.mkdir(mode=0o777)
    machine.home.chmod(0o777)
    assert "must belong to root and be writable only for root" in machine.run("up.sh").stderr
    machine.home.rmdir()
    machine.home.symlink_to(tmp_path)
    assert "is a symbolic link" in machine.run("up.sh").stderr


def test_down_asks_only_its_own_cluster_and_stops_only_its_own_daemons(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.command("squeue", '[ -e $0.asked ] || echo 5; [ "$3" = %A ] && touch $0.asked; exit 0')
    daemon = tmp_path / "slurmctld"
    shutil.copy("/bin/sleep", daemon)
    processes = [subprocess.Popen([str(daemon), "600"]) for _ in range(2)]
    try:
        (machine.home / "run").mkdir(parents=True)
        (machine.home / "run" / "slurmctld.pid").write_text(f"{processes[0].pid}\n")
        (machine.root / "proc" / str(processes[0].pid)).symlink_to(f"/proc/{processes[0].pid}")
        ended = machine.run("down.sh", SLURM_CONF="/etc/slurm/production.conf")
        assert ended.returncode == 0, ended.stderr
        own = f"SLURM_CONF={machine.home}/etc/slurm.conf"
        assert machine.calls("scancel") == [f"scancel 5 {own}"]
        assert all(call.endswith(own) for call in machine.calls("squeue"))
        assert processes[0].wait(timeout=30) != 0
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_down_removes_its_links_and_nothing_else(machine: Machine) -> None:
    etc, own = machine.root / "etc" / "slurm", machine.home / "etc"
    for folder in (etc, own):
        folder.mkdir(parents=True)
    (own / "slurm.conf").write_text("# written by launch/devcluster/up.sh\n")
    (etc / "slurm.conf").symlink_to(own / "slurm.conf")
    (etc / "gres.conf").symlink_to("/opt/slurm/etc/gres.conf")
    (etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v2\n")
    machine.command("squeue", "echo 5")
    assert machine.run("down.sh").returncode == 0
    assert sorted(path.name for path in etc.iterdir()) == ["cgroup.conf", "gres.conf"]
    assert machine.calls("scancel") == machine.calls("squeue") == [], "its controller does not run"
    (machine.home / "installed-packages").write_text("munge\nslurmd\n")
    ended = machine.run("down.sh", "--purge")
    assert "up.sh installed these packages: apt-get purge munge slurmd" in ended.stdout
    assert not machine.home.exists()


def test_purge_deletes_only_the_folder_of_a_cluster(machine: Machine) -> None:
    machine.home.mkdir()
    (machine.home / "thesis.tex").touch()
    machine.run("down.sh", "--purge")
    assert (machine.home / "thesis.tex").exists()
