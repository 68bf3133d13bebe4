// Shared by all pages of the report. Classic scripts: a page opened from disk cannot load modules.

"use strict";

const aot = {};

/** A text with its control and format characters as escapes (U+202E reverses the text after it); line breaks stay. */
aot.printable = (text) => {
  if (/^[ -~]*$/.test(text)) return text; // a table makes thousands of cells
  return text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
};

/** Create an element with properties and children (elements or text); text is never parsed as markup. */
aot.make = (name, properties = {}, ...children) => {
  const element = document.createElement(name);
  const { dataset, ...others } = properties;
  Object.assign(element, others);
  Object.assign(element.dataset, dataset ?? {});
  const shown = children.filter((child) => child !== null && child !== undefined);
  element.append(...shown.map((child) => (typeof child === "string" ? aot.printable(child) : child)));
  return element;
};

aot.byId = (id) => document.getElementById(id);

/** Format a number: three significant digits; integers in full, with thousands separators. */
aot.shown = (value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
};

/** A number with its noun, in the plural unless it is 1. */
aot.count = (number, noun) => `${aot.shown(number)} ${noun}${number === 1 ? "" : "s"}`;

/** The address of a clip's page. */
aot.clipPage = (clipId) => `clip.html?clip=${encodeURIComponent(clipId)}`;

/** The address of a file of the report; its name may contain any character. */
aot.fileAddress = (path) => path.split("/").map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");

const ORDER_KEY = `aot-order ${location.pathname.replace(/[^/]*$/, "")}`;

/** Remember the clips in the order in which the table shows them, for the buttons to the previous and the next one. */
aot.rememberOrder = (clipIds) => {
  try {
    sessionStorage.setItem(ORDER_KEY, JSON.stringify(clipIds));
  } catch {
    // without storage, or beyond its limit, the buttons follow the names
  }
};

/** The clips in the order of the table; null: it was not shown in this window. */
aot.rememberedOrder = () => {
  try {
    return JSON.parse(sessionStorage.getItem(ORDER_KEY));
  } catch {
    return null;
  }
};

aot.STATE_CLASS = { done: "good", partial: "warn", failed: "bad", pending: "", "no prompt": "" };

aot.state = (state) => aot.make("span", { className: `state ${aot.STATE_CLASS[state] ?? ""}` }, state);

/** Entries of a definition list; entries without a value are omitted. */
aot.facts = (pairs) =>
  pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([term, value]) => aot.make("div", {}, aot.make("dt", {}, term), aot.make("dd", { className: "numbers" }, value)));

/** A command with a button that copies it. */
aot.command = (text) => {
  const code = aot.make("code", { tabIndex: 0 }, text);
  const copy = aot.make("button", { type: "button", className: "copy" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // some browsers do not let pages from disk write to the clipboard
      copy.textContent = "Selected";
    }
  });
  return aot.make("p", { className: "command" }, code, copy);
};

/** A collapsible section. */
aot.details = (title, ...children) => aot.make("details", {}, aot.make("summary", {}, title), ...children);

/** A small table of records with the same keys. */
aot.records = (records) => {
  const keys = [...new Set(records.flatMap((record) => Object.keys(record)))];
  const head = aot.make("tr", {}, ...keys.map((key) => aot.make("th", { scope: "col" }, /^[a-z_]+$/.test(key) ? key.replaceAll("_", " ") : key)));
  const rows = records.map((record) =>
    aot.make("tr", {}, ...keys.map((key) => aot.make("td", {}, aot.shown(record[key])))),
  );
  const table = aot.make("table", { className: "records" }, aot.make("thead", {}, head), aot.make("tbody", {}, ...rows));
  return aot.make("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: keys.join(", ") }, table);
};
