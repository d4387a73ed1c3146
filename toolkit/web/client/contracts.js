/** What a sampler takes and returns, and whether a graph does: runtimes/contracts.py. */

import { MOST_ROWS } from "./tableaus.js";
import { ModelError } from "./words.js";

/** The graph's inputs and outputs against the spec: names, element types and sizes (see contracts.py). */
export function match(model, session) {
  const { shape, condition } = model.spec;
  const sample = ["float", [null, ...shape]];
  const slots = ["float", [null, null, ...shape]];
  const inputs = { x: slots };
  if (condition.kind === "label") inputs.label = ["int64", [null]];
  if (condition.kind === "context") inputs.context = ["float", [null, ...condition.shape]];
  const options = { tableau: ["float", [null, null, null]], seed: ["int64", [null]] };
  if (condition.kind !== "none") options.guidance = ["float", [null]];
  const isOption = ({ name }) => model.defaults.includes(name);
  same(
    model,
    "inputs",
    inputs,
    session.inputMetadata.filter((value) => !isOption(value)),
  );
  same(model, "inputs with defaults", options, session.inputMetadata.filter(isOption));
  same(model, "outputs", { sample, slots }, session.outputMetadata);
  const rows = model.sizes.tableau?.[0] ?? 1;
  if (!(rows > 0 && rows <= MOST_ROWS)) {
    throw new ModelError(
      `${model.name}: expected a tableau of 1 to ${MOST_ROWS} rows, got ${rows}; export it again`,
    );
  }
  const tables = model.tables.filter((name) => model.sizes[name]?.length).map((name) => model.sizes[name][0]);
  if (condition.kind === "label" && tables.some((count) => count !== condition.classes + 1)) {
    throw new ModelError(
      `${model.name}: expected a table of ${condition.classes} classes and no label by its spec, ` +
        `got ${Math.min(...tables)} rows; export the network again`,
    );
  }
}

/** Every value by name: its element type, and its sizes, free where they must be. */
function same(model, what, expected, values) {
  const found = Object.fromEntries(
    values.map(({ name, type, shape }) => [name, [type === "float32" ? "float" : type, shape ?? []]]),
  );
  const isSame = ([type, sizes], [got, given]) =>
    type === got &&
    sizes.length === given.length &&
    sizes.every((size, axis) => (size === null ? !(given[axis] >= 0) : size === given[axis]));
  const names = Object.keys(expected);
  const good =
    names.length === values.length &&
    names.every((name) => found[name] && isSame(expected[name], found[name]));
  if (good) return;
  const fixed = names.some((name) => found[name]?.[1][0] >= 0);
  const show = (all) =>
    Object.entries(all)
      .map(([name, [type, sizes]]) => `${name} ${type} (${sizes.map((size) => size ?? "B").join(", ")})`)
      .join(", ") || "none";
  throw new ModelError(
    `${model.name}: expected ${what} ${show(expected)} by its spec, got ${show(found)}` +
      `${fixed ? " without a free batch axis" : ""}; export the network again`,
  );
}
