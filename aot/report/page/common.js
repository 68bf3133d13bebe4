// What both pages of the report need. Classic scripts: a page that was opened from the disk may load no modules.

"use strict";

const aot = {};

/** An element: its properties, and children that are elements or text; text is never read as markup. */
aot.make = (name, properties = {}, ...children) => {
  const element = document.createElement(name);
  const { dataset, ...others } = properties;
  Object.assign(element, others);
  Object.assign(element.dataset, dataset ?? {});
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

aot.byId = (id) => document.getElementById(id);

/** A number as people read it: three significant digits, whole numbers with their thousands apart. */
aot.shown = (value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
};

/** The address of a clip's page. */
aot.clipPage = (clipId) => `clip.html?clip=${encodeURIComponent(clipId)}`;

/** The address of a file of the report, whose name may hold anything. */
aot.fileAddress = (path) => path.split("/").map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");

aot.STATE_CLASS = { done: "good", partial: "warn", failed: "bad", pending: "" };

aot.state = (state) => aot.make("span", { className: `state ${aot.STATE_CLASS[state] ?? ""}` }, state);

/** Terms and what they are, in a definition list. */
aot.facts = (pairs) =>
  pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([term, value]) => aot.make("div", {}, aot.make("dt", {}, term), aot.make("dd", { className: "numbers" }, value)));

/** A command to copy. */
aot.command = (text) => {
  const code = aot.make("code", { tabIndex: 0 }, text);
  const copy = aot.make("button", { type: "button", className: "copy" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // pages from the disk may not copy by themselves everywhere
      copy.textContent = "Selected";
    }
  });
  return aot.make("p", { className: "command" }, code, copy);
};

/** A part that opens. */
aot.details = (title, ...children) => aot.make("details", {}, aot.make("summary", {}, title), ...children);

/** A small table of records that share their keys. */
aot.records = (records) => {
  const keys = [...new Set(records.flatMap((record) => Object.keys(record)))];
  const head = aot.make("tr", {}, ...keys.map((key) => aot.make("th", { scope: "col" }, /^[a-z_]+$/.test(key) ? key.replaceAll("_", " ") : key)));
  const rows = records.map((record) =>
    aot.make("tr", {}, ...keys.map((key) => aot.make("td", {}, aot.shown(record[key])))),
  );
  const table = aot.make("table", { className: "records" }, aot.make("thead", {}, head), aot.make("tbody", {}, ...rows));
  return aot.make("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: keys.join(", ") }, table);
};
