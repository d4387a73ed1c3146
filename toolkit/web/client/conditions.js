/** What a person asks samples to be, checked: runtimes/conditions.py, word for word. */

import { InputError, product, quoted, repr, tuple } from "./words.js";

export const LARGEST_SEED = Number.MAX_SAFE_INTEGER; // 2^53 - 1
const LARGEST_WEIGHT = 1e4;

export function guidanceOf(spec, guidance) {
  if (spec.condition.kind === "none") {
    if (guidance !== undefined && guidance !== 1) {
      throw new InputError(
        `guidance: expected 1 for a model without conditions, got ${quoted(guidance)}; leave it out`,
      );
    }
    return 1;
  }
  const weight = guidance ?? spec.sampler.guidance;
  if (!(typeof weight === "number" && Math.abs(weight) <= LARGEST_WEIGHT)) {
    throw new InputError(
      `guidance: expected a number within +-${LARGEST_WEIGHT}, got ${quoted(weight)}; 1 turns it off`,
    );
  }
  return weight;
}

/** BigInt64Array (n,) of labels, Float32Array (n, ...shape) of contexts, or null. */
export function conditionOf(spec, n, label, context) {
  const { kind } = spec.condition;
  for (const [word, given] of [
    ["label", label],
    ["context", context],
  ]) {
    if (given !== undefined && given !== null && kind !== word) {
      throw new InputError(
        `${word}: expected none for a model whose condition is ${repr(kind)}, got one; leave it out`,
      );
    }
  }
  if (kind === "label") return labelsOf(spec.condition, n, label);
  return kind === "context" ? contextsOf(spec.condition.shape, n, context) : null;
}

function labelsOf({ classes, names }, n, label) {
  const numbered = names.every((name, index) => name === String(index));
  const words = names
    .slice(0, 20)
    .map((name) => quoted(name, 40).slice(1, -1))
    .join(", ");
  const known = `labels are 0..${classes - 1}${numbered ? "" : ` (${words})`}, or none for no label`;
  if (label === undefined || label === null) {
    throw new InputError(`label: expected one for a labelled model, got none; ${known}`);
  }
  const several = Array.isArray(label) || ArrayBuffer.isView(label);
  const given = several ? Array.from(label) : [label];
  if (!given.length) throw new InputError(`label: expected at least one, got an empty list; ${known}`);
  const rows = given.map((item) => {
    let index = Number.isInteger(item) && item >= 0 && item < classes ? item : -1;
    if (typeof item === "string")
      index = names.includes(item) ? names.indexOf(item) : item === "none" ? classes : -1;
    if (index < 0) {
      throw new InputError(`label: expected one of this model's, got ${quoted(item)}; ${known}`);
    }
    return BigInt(index);
  });
  return BigInt64Array.from({ length: n }, (_, index) => rows[index % rows.length]);
}

function contextsOf(shape, n, context) {
  if (context === undefined || context === null) {
    throw new InputError(
      `context: expected float32 ${tuple(shape)} or (n, *${tuple(shape)}), got none; give one`,
    );
  }
  const size = product(shape);
  if (!(context instanceof Float32Array) || ![size, n * size].includes(context.length)) {
    const got = ArrayBuffer.isView(context)
      ? `${context.constructor.name} (${context.length},)`
      : quoted(context);
    throw new InputError(
      `context: expected float32 ${tuple(shape)} or ${tuple([n, ...shape])}, got ${got}; ` +
        "give one for all samples or one for each",
    );
  }
  if (!context.every(Number.isFinite)) {
    throw new InputError("context: expected finite numbers, got NaN or infinity; check the array");
  }
  if (context.length === n * size) return context;
  const all = new Float32Array(n * size);
  for (let row = 0; row < n; row++) all.set(context, row * size);
  return all;
}

/** seed, seed + 1, ..., seed + count - 1. */
export function seedRows(seed, count) {
  if (!Number.isInteger(seed)) {
    throw new InputError(`seed: expected a whole number, got ${quoted(seed)}; use 0 to ${LARGEST_SEED}`);
  }
  if (!(seed >= 0 && seed <= LARGEST_SEED - Math.max(count - 1, 0))) {
    throw new InputError(
      `seed: expected 0 to ${LARGEST_SEED} for every sample, got ${BigInt(seed)} for ${count} of them; ` +
        "choose a smaller one",
    );
  }
  return Array.from({ length: count }, (_, index) => seed + index);
}
