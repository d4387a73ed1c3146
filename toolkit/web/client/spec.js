/** JSON -> the spec a model carries: runtimes/spec.py, word for word. */

import { guidanceOf } from "./conditions.js";
import { ModelError, choose, isList, quoted, repr, tuple } from "./words.js";

export const VERSION = 1;
export const KEYS = {
  spec: {
    name: "text",
    shape: "sizes",
    schedule: "text",
    prediction: "text",
    condition: "condition",
    sampler: "sampler",
    value_range: "range",
    training: "object",
    version: "whole",
  },
  condition: { kind: "text", classes: "whole", names: "texts", shape: "sizes" },
  sampler: { solver: "text", steps: "whole", grid: "text", guidance: "number" },
};
const NEEDED = { spec: ["name", "shape", "version"], condition: [], sampler: [] };
const DEFAULTS = {
  spec: { schedule: "linear", prediction: "velocity", value_range: null, training: {} },
  condition: { kind: "none", classes: 0, names: [], shape: [] },
  sampler: { solver: "heun", steps: 20, grid: "uniform", guidance: 1 },
};
const VALUES = {
  text: [(value) => typeof value === "string", "a text"],
  whole: [Number.isSafeInteger, "a whole number"],
  number: [Number.isFinite, "a finite number"],
  object: [(value) => typeof value === "object" && value !== null && !Array.isArray(value), "a list"],
  range: [(value) => value === null || (isList(value, Number.isFinite) && value.length === 2), "a list"],
};

/** The spec a JSON text holds; ModelError names the first key that is not as it should be. */
export function specFrom(text) {
  let raw;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new ModelError(
      `spec: expected JSON, got ${repr(text.slice(0, 40))} (${error.message}); export the model again`,
    );
  }
  const version = raw?.version;
  if (Number.isInteger(version) && version !== VERSION) {
    const [whose, fix] =
      version > VERSION ? ["a newer", "update this toolkit"] : ["an unknown", "export again"];
    throw new ModelError(
      `spec.version: expected ${VERSION}, got ${version}: made by ${whose} version; ${fix}`,
    );
  }
  const spec = record("spec", raw, "spec");
  spec.condition = record("condition", spec.condition ?? {}, "spec.condition");
  spec.sampler = record("sampler", spec.sampler ?? {}, "spec.sampler");
  requireSense(spec);
  return spec;
}

/** Every key known and of its type, none missing. */
function record(kind, raw, where) {
  if (!VALUES.object[0](raw)) {
    throw new ModelError(`${where}: expected an object, got ${quoted(raw)}; export the model again`);
  }
  for (const key of Object.keys(raw)) choose(`${where} key`, key, Object.keys(KEYS[kind]));
  for (const key of NEEDED[kind]) {
    if (!(key in raw)) throw new ModelError(`${where}.${key}: expected a value, got none; add the key`);
  }
  for (const [key, value] of Object.entries(raw)) typed(KEYS[kind][key], value, `${where}.${key}`);
  return { ...DEFAULTS[kind], ...raw };
}

function typed(type, value, where) {
  if (type in KEYS) return;
  const of = { sizes: "whole", texts: "text" }[type];
  if (of && Array.isArray(value))
    return value.forEach((item, index) => typed(of, item, `${where}[${index}]`));
  const [test, words] = VALUES[type] ?? [() => false, "a list"];
  if (!test(value)) {
    throw new ModelError(`${where}: expected ${words}, got ${quoted(value)}; export the model again`);
  }
}

function requireSense({ shape, value_range, condition, sampler }) {
  const { kind, classes, names } = condition;
  choose("condition", kind, ["none", "label", "context"]);
  if ((kind === "label") !== classes > 0) {
    throw new ModelError(
      `condition.classes: expected a count above 0 for kind 'label' and 0 otherwise, got ${classes} for ` +
        `${repr(kind)}; correct the spec`,
    );
  }
  if (names.length && names.length !== classes) {
    throw new ModelError(
      `condition.names: expected ${classes} names, got ${names.length}; give one per label or none`,
    );
  }
  const sizes = condition.shape;
  if ((kind === "context") !== [1, 2].includes(sizes.length) || sizes.some((size) => size < 1)) {
    throw new ModelError(
      "condition.shape: expected (D,) or (L, D) for kind 'context' and () otherwise, got " +
        `${tuple(sizes)} for ${repr(kind)}; correct the spec`,
    );
  }
  guidanceOf({ condition: { kind: "label" }, sampler });
  const [low, high] = value_range ?? [0, 1];
  if (!(low < high)) {
    throw new ModelError(
      `value_range: expected (low, high) with low < high, got ${tuple(value_range)}; or None where the ` +
        "data is unbounded",
    );
  }
  if (!shape.length || shape.some((size) => size < 1)) {
    throw new ModelError(
      `shape: expected sizes of at least 1, got ${tuple(shape)}; give one sample's shape, channels last`,
    );
  }
}
