/** A number with its noun, in the plural unless the number is 1. */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
