// Changes that are not saved yet, in the browser's storage: they survive a reload and a restart of the server.

export class Drafts {
  /** Use the drafts of this manifest. */
  open(manifest) {
    this.manifest = manifest;
  }

  keep(clipId, version, entries) {
    try {
      localStorage.setItem(this.#key(clipId), JSON.stringify({ version, entries }));
    } catch {
      // Without storage (a private window, a full disk) the page works as before.
    }
  }

  /** {version, entries} of a clip, or null: `version` is that of the saved prompts on which the draft is based. */
  of(clipId) {
    try {
      const draft = JSON.parse(localStorage.getItem(this.#key(clipId)));
      return Array.isArray(draft?.entries) ? draft : null;
    } catch {
      return null;
    }
  }

  forget(clipId) {
    try {
      localStorage.removeItem(this.#key(clipId));
    } catch {
      // as above
    }
  }

  #key(clipId) {
    return `aot draft ${JSON.stringify([this.manifest, clipId])}`;
  }
}
