/** Errors and values in words, as Python writes them: see runtimes/choices.py. */

/** The caller's mistake: one line, what was expected, what came, what to do. */
export class InputError extends Error {
  name = "InputError";
}

/** This file is not a model of ours, or not whole, or not safe to open. */
export class ModelError extends InputError {
  name = "ModelError";
  constructor(text) {
    super(
      [...text]
        .slice(0, 2000)
        .map((c) => (/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(c) ? "?" : c))
        .join(""),
    );
  }
}

/** `got`, if it is one of the choices; else InputError with all of them and the nearest guess. */
export function choose(what, got, choices) {
  if (typeof got === "string" && choices.includes(got)) return got;
  const near = typeof got === "string" ? nearest(got.slice(0, 80), choices) : undefined;
  const guess = near === undefined ? "choose one of these" : `did you mean ${repr(near)}?`;
  throw new InputError(`${what}: expected one of ${choices.join(", ")}, got ${quoted(got)}; ${guess}`);
}

/** The choice most like a word, if twice its common pieces are 0.6 or more of both lengths. */
function nearest(word, choices) {
  const common = (a, b) => {
    let [size, i, j] = [0, 0, 0];
    for (let x = 0; x < a.length; x++) {
      for (let y = 0; y < b.length; y++) {
        let run = 0;
        while (x + run < a.length && y + run < b.length && a[x + run] === b[y + run]) run++;
        if (run > size) [size, i, j] = [run, x, y];
      }
    }
    if (!size) return 0;
    return size + common(a.slice(0, i), b.slice(0, j)) + common(a.slice(i + size), b.slice(j + size));
  };
  const scored = choices.map((choice) => [
    (2 * common(choice, word)) / (choice.length + word.length),
    choice,
  ]);
  const good = scored.filter(([score]) => score >= 0.6);
  return good.sort((a, b) => b[0] - a[0] || (b[1] > a[1] ? 1 : -1))[0]?.[1];
}

/** repr(value) in one line of at most so many characters. */
export function quoted(value, most = 80) {
  const text = repr(value).split(/\s+/).join(" ").trim();
  return text.length <= most ? text : `${text.slice(0, most)}...`;
}

export function repr(value) {
  if (typeof value === "string") {
    const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
    const escapes = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };
    const inside = [...value].map((c) => {
      if (c === quote) return `\\${c}`;
      if (c in escapes) return escapes[c];
      const code = c.codePointAt(0);
      if (!/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(c)) return c;
      if (code < 256) return `\\x${code.toString(16).padStart(2, "0")}`;
      return code < 65536
        ? `\\u${code.toString(16).padStart(4, "0")}`
        : `\\U${code.toString(16).padStart(8, "0")}`;
    });
    return quote + inside.join("") + quote;
  }
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number" && !Number.isFinite(value))
    return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (typeof value === "object")
    return `{${Object.entries(value)
      .map(([k, v]) => `${repr(k)}: ${repr(v)}`)
      .join(", ")}}`;
  return String(value);
}

export function whole(what, value, low, high) {
  if (!(Number.isInteger(value) && value >= low && value <= high)) {
    throw new InputError(`${what}: expected a whole number from ${low} to ${high}, got ${quoted(value)}`);
  }
}

export const tuple = (values) => `(${values.join(", ")}${values.length === 1 ? "," : ""})`;
export const product = (sizes) => sizes.reduce((all, size) => all * size, 1);
export const isList = (value, test) =>
  Array.isArray(value) && value.length > 0 && value.every((item) => test(item));
