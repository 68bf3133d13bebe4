// Requests to the server. All addresses are relative to the page's own, which starts with the token.

export class ApiError extends Error {
  constructor(message, status, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not respond. Check that `python -m aot.prompt` is still running.", 0, null);
  }
  if (response.ok) return response;
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // plain text is the message itself
  }
  throw new ApiError(body?.error ?? (text || response.statusText), response.status, body);
}

function withJson(method, body) {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

const query = (values) => new URLSearchParams(values).toString();

export const session = async () => (await ask("api/session")).json();

export const clips = async (revision) => (await ask(`api/clips?${query({ revision })}`)).json();

export const clip = async (id) => (await ask(`api/clip?${query({ clip: id })}`)).json();

export const thumbnail = async (id, signal) => (await ask(`api/thumbnail?${query({ clip: id })}`, { signal })).blob();

/** The image of a frame and its presentation time in s. */
export async function frame(id, number, signal) {
  const response = await ask(`api/frame?${query({ clip: id, frame: number })}`, { signal });
  const time = Number(response.headers.get("X-Frame-Time"));
  return { image: await createImageBitmap(await response.blob()), time };
}

/** Masks for the prompts `objects` of a frame, with images to draw over it. */
export async function masks(id, number, objects) {
  const answer = await (await ask("api/masks", withJson("POST", { clip: id, frame: number, objects }))).json();
  return Promise.all(
    answer.masks.map(async ({ png, ...mask }) => ({ ...mask, image: png ? await decoded(png) : null })),
  );
}

/** Objects that a detector finds by words on a frame: all of them, or the best one. */
export const words = async (id, number, text, every) =>
  (await ask("api/words", withJson("POST", { clip: id, frame: number, text, every }))).json();

export const save = async (id, version, objects) =>
  (await ask("api/entry", withJson("PUT", { clip: id, version, objects }))).json();

async function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}
