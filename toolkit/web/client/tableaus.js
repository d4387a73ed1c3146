/** The tables of numbers that are the solvers: those a file carries, or one of the caller's own. */

import { InputError, ModelError, isList, product, quoted, tuple } from "./words.js";

export const MOST_ROWS = 40_000;
const MOST_SLOTS = 16;
const MOST_CALLS = 32; // of a fitted one

/** The ready-made tableaus a file carries, each with its numbers in `data`; the first is recommended. */
export function tableausFrom(text) {
  let entries;
  try {
    entries = JSON.parse(text);
    if (!Array.isArray(entries)) throw new Error("no list");
    entries = entries.map(tableauFrom);
  } catch (error) {
    const reason = error.message.slice(0, 120);
    throw new ModelError(`tableaus: expected a list of tableaus, got another text (${reason}); export again`);
  }
  if (!entries.length) throw new ModelError("tableaus: expected a list of tableaus, got none; export again");
  return entries;
}

function tableauFrom(entry) {
  const { solver, steps, grid, shape, sigma, times, ends, data } = Object(entry);
  const words = typeof solver === "string" && Number.isInteger(steps) && typeof grid === "string";
  const lists =
    isList(shape, Number.isInteger) && isList(times, Number.isFinite) && isList(ends, Number.isInteger);
  if (!(words && lists && Number.isFinite(sigma) && typeof data === "string"))
    throw new Error("a key is missing");
  const rising = ends.every((end, index) => end > (ends[index - 1] ?? -1));
  if (!rising || ends.at(-1) !== shape[0] - 1 || times.length !== ends.length + 1) {
    throw new Error(`${ends.length} step ends in ${shape[0]} rows, ${times.length} times`);
  }
  if (solver === "fitted" && !(shape[0] === steps && steps <= MOST_CALLS)) {
    throw new Error(`${steps} fitted calls in ${shape[0]} rows`);
  }
  const numbers = checkTableau(floatsOf(data), shape);
  return { solver, steps, grid, shape, sigma, times, ends, data: numbers };
}

/** The little-endian float32 numbers in a base64 text. */
function floatsOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** { data, shape, sigma, ends, times } of the caller's own, checked; without `ends` it shows its last row. */
export function ownTableau({ data, shape, sigma = 1, ends = [shape?.[0] - 1], times }) {
  checkTableau(data, shape);
  const timeOf = (row) => data[row * shape[1] * shape[2] + shape[1] - 1];
  return { data, shape, sigma, ends, times: times ?? [0, ...ends].map(timeOf) };
}

/** The numbers, if they are a tableau as `runtimes.tableau.dense` makes them. */
function checkTableau(data, shape) {
  const fix = "take one of the model's own";
  const shaped = isList(shape, Number.isInteger);
  const isArray = data instanceof Float32Array;
  if (!isArray || !shaped || product(shape) !== data.length || shape.length !== 3) {
    const got = isArray ? `float32 ${shaped ? tuple(shape) : quoted(shape)}` : quoted(data);
    throw new InputError(`tableau: expected float32 (rows, slots + 1, slots + 2 or 3), got ${got}; ${fix}`);
  }
  const [rows, width, columns] = shape;
  const slots = width - 1;
  const sized = rows > 0 && rows <= MOST_ROWS && slots > 0 && slots <= MOST_SLOTS;
  if (!sized || ![2, 3].includes(columns - slots)) {
    throw new InputError(
      `tableau: expected 1 to ${MOST_ROWS} rows of 1 to ${MOST_SLOTS} slots and 2 or 3 columns more than slots, ` +
        `got ${tuple(shape)}; ${fix}`,
    );
  }
  const isHead = (head) =>
    head.slice(slots).every((value) => value >= 0) &&
    [0, 1].includes(head[slots + 1]) &&
    Number.isInteger(head[slots + 2] ?? 0);
  const heads = Array.from({ length: rows }, (_, row) =>
    data.subarray(row * width * columns).subarray(0, columns),
  );
  if (!data.every(Number.isFinite) || !heads.every(isHead)) {
    throw new InputError(
      `tableau: expected finite numbers, guided 0 or 1 and whole draws, got others; ${fix}`,
    );
  }
  return data;
}
