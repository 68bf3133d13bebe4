/** A number with its noun, in the plural unless the number is 1. */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

const LAST_CHARACTERS = 14;

/** A name in an element that cuts it in the middle where it is too long: its end tells clips apart. */
export function showName(element, name) {
  const characters = [...printable(name)];
  const end = Math.min(LAST_CHARACTERS, Math.floor(characters.length / 2));
  const parts = [characters.slice(0, characters.length - end), characters.slice(characters.length - end)];
  element.classList.add("cut-name");
  element.replaceChildren(
    ...parts.map((part) => {
      const inner = document.createElement("bdi");
      inner.textContent = part.join("");
      return inner;
    }),
  );
}

/** A text with its control and format characters as escapes (U+202E reverses the text after it). */
export const printable = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
