/**
 * sample(model, n) -> float32 (n, ...shape): a model file of the form `sampler`, in Node or a browser.
 *
 *     import ort from "onnxruntime-node";                       // or "onnxruntime-web/wasm", "/webgpu"
 *     const model = await load(ort, bytes, { name: "digits.onnx" });
 *     for await (const state of stream(model, 4, { label: 7, seed: 0 })) draw(state.x);
 *
 * The file carries its solvers as tables of numbers, so there is none here. What stands here is what
 * Python does around them: the checks of `runtimes/modelfile.py`, `graph.py` and `spec.py` in the same
 * words, the noise of `runtimes/noise.py` with the same bits, and the table fed in pieces, a step each.
 * No imports: the caller hands in onnxruntime.
 */

export const VERSION = 1;
export const LARGEST_SEED = Number.MAX_SAFE_INTEGER; // 2^53 - 1
const MOST_SAMPLES = 10_000_000;
const MOST_BATCH_BYTES = 2 ** 30;
const LARGEST_WEIGHT = 1e4;

/** The caller's mistake: one line, what was expected, what came, what to do. */
export class InputError extends Error {
  name = "InputError";
}

/** This file is not a model of ours, or not whole, or not safe to open. */
export class ModelError extends InputError {
  name = "ModelError";
  constructor(text) {
    super([...text].slice(0, 2000).map((c) => (/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(c) ? "?" : c)).join(""));
  }
}

class Broken extends Error {} // these bytes are not the message they should be
class Short extends Error {} // and these end too early

// ---------------------------------------------------------------------------------- opening a file

/**
 * A model: what it is, checked, and an onnxruntime session that runs it.
 *
 * bytes: Uint8Array of the file. name: what errors call it. session: options of onnxruntime, such as
 * { executionProviders: ["webgpu"] }. Rejects with a ModelError that says what is wrong with the file.
 */
export async function load(ort, bytes, { name = "model.onnx", session = {} } = {}) {
  const model = await check(bytes, { name });
  const options = { logSeverityLevel: 3, ...session };
  let opened;
  try {
    opened = await ort.InferenceSession.create(withoutDefaults(bytes, model.defaults), options);
  } catch (error) {
    const reason = String(error.message ?? error).split(/\s+/).join(" ").slice(0, 200);
    throw new ModelError(`${name}: expected a graph ONNX Runtime opens, got: ${reason}; export it again`);
  }
  match(model, opened);
  return { ...model, ort, session: opened };
}

/** What the bytes are, before onnxruntime sees them: { name, spec, form, tableaus, metadata, digest }. */
export async function check(bytes, { name = "model.onnx" } = {}) {
  try {
    const digest = await sealOf(bytes);
    const walked = walkFile(bytes);
    const { metadata } = walked;
    const form = metadata["toolkit.form"] ?? "network";
    if (!FORMS.includes(form)) {
      throw new ModelError(`expected the form ${FORMS.join(", ")}, got ${repr(form.slice(0, 40))}; update this toolkit`);
    }
    if (form !== "sampler") {
      throw new ModelError(
        `expected a file of the form 'sampler', got ${repr(form)}; write one with toolkit export --form sampler`,
      );
    }
    const spec = specFrom(metadata["toolkit.spec"]);
    return { ...walked, name, spec, form, digest, tableaus: tableausFrom(metadata["toolkit.tableaus"] ?? "") };
  } catch (error) {
    if (error instanceof InputError) throw new ModelError(`${name}: ${error.message}`);
    if (!(error instanceof Broken || error instanceof Short)) throw error;
    const reason = error instanceof Broken ? error.message : "cut short or no text";
    throw new ModelError(`${name}: expected an ONNX protobuf, got broken fields (${reason}); export again`);
  }
}

/** The graph's inputs and outputs against the spec: names, element types and sizes (see contracts.py). */
function match(model, session) {
  const { shape, condition } = model.spec;
  const sample = ["float", [null, ...shape]];
  const slots = ["float", [null, null, ...shape]];
  const inputs = { x: slots };
  if (condition.kind === "label") inputs.label = ["int64", [null]];
  if (condition.kind === "context") inputs.context = ["float", [null, ...condition.shape]];
  const options = { tableau: ["float", [null, null, null]], seed: ["int64", [null]] };
  if (condition.kind !== "none") options.guidance = ["float", [null]];
  const isOption = ({ name }) => model.defaults.includes(name);
  same(model, "inputs", inputs, session.inputMetadata.filter((value) => !isOption(value)));
  same(model, "inputs with defaults", options, session.inputMetadata.filter(isOption));
  same(model, "outputs", { sample, slots }, session.outputMetadata);
  const rows = model.sizes.tableau?.[0] ?? 1;
  if (!(rows > 0 && rows <= MOST_ROWS)) {
    throw new ModelError(`${model.name}: expected a tableau of 1 to ${MOST_ROWS} rows, got ${rows}; export it again`);
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
    type === got && sizes.length === given.length &&
    sizes.every((size, axis) => (size === null ? !(given[axis] >= 0) : size === given[axis]));
  const names = Object.keys(expected);
  const good = names.length === values.length && names.every((name) => found[name] && isSame(expected[name], found[name]));
  if (good) return;
  const fixed = names.some((name) => found[name]?.[1][0] >= 0);
  const show = (all) =>
    Object.entries(all).map(([name, [type, sizes]]) => `${name} ${type} (${sizes.map((size) => size ?? "B").join(", ")})`).join(", ") || "none";
  throw new ModelError(
    `${model.name}: expected ${what} ${show(expected)} by its spec, got ${show(found)}` +
      `${fixed ? " without a free batch axis" : ""}; export the network again`,
  );
}

// --------------------------------------------------------------------------------------- sampling

/**
 * n samples, float32 (n, ...shape) as one Float32Array; see `stream` for what may be requested.
 *
 * onStep(state) is called after every step; without it the whole run is one call of onnxruntime.
 */
export async function sample(model, n, { onStep, ...request } = {}) {
  let last;
  for await (const state of stream(model, n, { preview: Boolean(onStep), ...request })) {
    if (state.step > 0) onStep?.(state);
    last = state.x;
  }
  return last;
}

/**
 * The states { x, step, steps, t } of n samples, the noise first: x is a Float32Array (n, ...shape).
 *
 * label: a number or name, a list of them to cycle through, or "none". context: Float32Array, one for
 * all or one per sample. seed: 0..2^53-1; sample i has seed + i. guidance: 1 turns it off. solver,
 * steps: of one of `model.tableaus`, the first where left out. tableau: { data, shape, sigma } of your
 * own. preview: false yields the last state only. signal: an AbortSignal that ends the run between two steps;
 * leaving the loop does so too. Throws InputError before the first state if something does not add up.
 */
export function stream(model, n, request = {}) {
  const plan = planOf(model, n, request);
  return follow(model, plan);
}

function planOf(model, n, { label, context, seed = 0, guidance, solver, steps, tableau, preview = true, signal }) {
  const { spec } = model;
  whole("n", n, 1, MOST_SAMPLES);
  const each = 4 * product(spec.shape);
  if (n * each > MOST_BATCH_BYTES) {
    throw new InputError(
      `n: expected at most ${Math.floor(MOST_BATCH_BYTES / each)} for arrays ${tuple(spec.shape)} ` +
        `(${MOST_BATCH_BYTES / 2 ** 20} MiB), got ${n}; take several parts: sample i uses seed + i, ` +
        "so they fit together",
    );
  }
  const table = tableau ? ownTableau(tableau) : ready(model.tableaus, solver, steps);
  const weight = guidanceOf(spec, guidance);
  const seeds = seedRows(seed, n);
  return { n, table, weight, seeds, condition: conditionOf(spec, n, label, context), preview, signal };
}

/** One of the file's tableaus: the first that has this solver and this number of steps. */
function ready(tableaus, solver, steps) {
  const name = solver ?? tableaus[0].solver;
  choose("solver", name, [...new Set(tableaus.map((one) => one.solver))]);
  const known = tableaus.filter((one) => one.solver === name);
  const found = steps === undefined ? known[0] : known.find((one) => one.steps === steps);
  if (!found) {
    throw new InputError(
      `steps: expected one of ${known.map((one) => one.steps).join(", ")} for ${repr(name)} in this ` +
        `file, got ${quoted(steps)}; take one of these, or give a tableau of your own`,
    );
  }
  return found;
}

async function* follow(model, plan) {
  const { ort, session, spec } = model;
  const { n, table, weight, seeds, condition, preview, signal } = plan;
  const [rows, width, columns] = table.shape;
  const size = product(spec.shape);
  const steps = table.ends.length;
  const first = Math.fround(table.sigma);
  let x = noise(seeds, size, 0).map((value) => value * first);
  yield { x, step: 0, steps, t: table.times[0] };
  const feeds = {};
  if (spec.condition.kind !== "none") {
    const isLabel = spec.condition.kind === "label";
    const sizes = [n, ...spec.condition.shape];
    feeds[spec.condition.kind] = new ort.Tensor(isLabel ? "int64" : "float32", condition, sizes);
    feeds.guidance = new ort.Tensor("float32", Float32Array.of(weight), [1]);
  }
  feeds.seed = new ort.Tensor("int64", BigInt64Array.from(seeds, BigInt), [n]);
  feeds.x = new ort.Tensor("float32", x, [1, n, ...spec.shape]);
  let from = 0;
  const noisy = columns === width + 2; // whose noise is made before a piece runs: piece by piece, to need less room
  for (const end of preview || noisy ? table.ends : [rows - 1]) {
    signal?.throwIfAborted();
    const piece = table.data.subarray(from * width * columns, (end + 1) * width * columns);
    feeds.tableau = new ort.Tensor("float32", piece, [end + 1 - from, width, columns]);
    const { sample, slots } = await session.run(feeds);
    from = end + 1;
    const step = table.ends.indexOf(end) + 1 || steps;
    x = sample.data;
    requireFinite(x, n, step, steps, table.times[step]);
    yield { x, step, steps, t: table.times[step] };
    feeds.x = slots;
  }
}

function requireFinite(x, n, step, steps, t) {
  const bad = [];
  const size = x.length / n;
  for (let at = 0; at < x.length; at++) {
    if (!Number.isFinite(x[at]) && bad.at(-1) !== Math.floor(at / size)) bad.push(Math.floor(at / size));
  }
  if (bad.length) {
    throw new ModelError(
      `step ${step} of ${steps}, t = ${Number(t.toPrecision(4))}: expected finite values, got NaN or infinity in ` +
        `${bad.length} samples ([${bad.slice(0, 5).join(", ")}]...); try more steps or less guidance`,
    );
  }
}

// -------------------------------------------------------------------------------- what was asked

function guidanceOf(spec, guidance) {
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
function conditionOf(spec, n, label, context) {
  const { kind } = spec.condition;
  for (const [word, given] of [["label", label], ["context", context]]) {
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
  const words = names.slice(0, 20).map((name) => quoted(name, 40).slice(1, -1)).join(", ");
  const known = `labels are 0..${classes - 1}${numbered ? "" : ` (${words})`}, or none for no label`;
  if (label === undefined || label === null) {
    throw new InputError(`label: expected one for a labelled model, got none; ${known}`);
  }
  const several = Array.isArray(label) || ArrayBuffer.isView(label);
  const given = several ? Array.from(label) : [label];
  if (!given.length) throw new InputError(`label: expected at least one, got an empty list; ${known}`);
  const rows = given.map((item) => {
    let index = Number.isInteger(item) && item >= 0 && item < classes ? item : -1;
    if (typeof item === "string") index = names.includes(item) ? names.indexOf(item) : item === "none" ? classes : -1;
    if (index < 0) {
      throw new InputError(`label: expected one of this model's, got ${quoted(item)}; ${known}`);
    }
    return BigInt(index);
  });
  return BigInt64Array.from({ length: n }, (_, index) => rows[index % rows.length]);
}

function contextsOf(shape, n, context) {
  if (context === undefined || context === null) {
    const inside = tuple(shape).slice(1, -1).replace(/,$/, "");
    throw new InputError(`context: expected float32 ${tuple(shape)} or (n, *(${inside}${shape.length === 1 ? "," : ""})), got none; give one`);
  }
  const size = product(shape);
  if (!(context instanceof Float32Array) || ![size, n * size].includes(context.length)) {
    const got = ArrayBuffer.isView(context) ? `${context.constructor.name} (${context.length},)` : quoted(context);
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

function whole(what, value, low, high) {
  if (!(Number.isInteger(value) && value >= low && value <= high)) {
    throw new InputError(`${what}: expected a whole number from ${low} to ${high}, got ${quoted(value)}`);
  }
}

// ------------------------------------------------------------------------------------------ noise

// Upper half of the table in units of 2^-20; runtimes/noise.py says where it comes from.
const UPPER = `
5257 15770 26285 36802 47323 57847 68376 78911 89452 100001 110558 121125 131702 142290 152890
163503 174131 184773 195431 206105 216798 227510 238241 248993 259768 270565 281386 292233 303106
314006 324935 335894 346884 357906 368961 380051 391177 402341 413543 424786 436070 447398 458770
470188 481654 493170 504736 516356 528030 539761 551551 563400 575313 587290 599334 611447 623631
635890 648225 660638 673134 685714 698382 711141 723993 736943 749993 763148 776411 789786 803277
816890 830627 844495 858499 872643 886933 901377 915978 930746 945686 960806 976114 991619 1007330
1023257 1039409 1055799 1072437 1089337 1106513 1123980 1141753 1159850 1178290 1197095 1216285
1235887 1255928 1276437 1297447 1318997 1341126 1363881 1387313 1411482 1436453 1462303 1489119
1517004 1546075 1576472 1608362 1641946 1677466 1715225 1755602 1799080 1846296 1898103 1955686
2020764 2095957 2185548 2297269 2447311 2679627 3219163`;
const HALF = UPPER.trim().split(/\s+/).map(Number);
const TABLE = Float64Array.from([...HALF.map((h) => -h).reverse(), ...HALF], (h) => h / 2 ** 20);
const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

/** Standard normals, Float32Array (seeds.length, size): row i from seeds[i] alone, the bits of Python. */
export function noise(seeds, size, draw) {
  const normals = new Float32Array(seeds.length * size);
  const half = (size + 1) >>> 1;
  seeds.forEach((seed, row) => {
    for (let pair = 0; pair < half; pair++) {
      const words = threefry(seed | 0, Math.floor(seed / 2 ** 32) | 0, pair, draw | 0);
      normals[row * size + pair] = normal(words[0]);
      if (pair + half < size) normals[row * size + half + pair] = normal(words[1]);
    }
  });
  return normals;
}

/** ((T[b0] + T[b1]) + (T[b2] + T[b3])) / 2: all exact, in float32 as in float64. */
const normal = (word) =>
  0.5 * (TABLE[word & 255] + TABLE[(word >>> 8) & 255] + TABLE[(word >>> 16) & 255] + TABLE[word >>> 24]);

/** Two int32 words of Threefry2x32 with 20 rounds (Salmon et al. 2011, section 4.1). */
export function threefry(key0, key1, counter0, counter1) {
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  let x = (counter0 + key0) | 0;
  let y = (counter1 + key1) | 0;
  for (let group = 0; group < 5; group++) {
    for (const rotation of ROTATIONS[group & 1]) {
      x = (x + y) | 0;
      y = ((y << rotation) | (y >>> (32 - rotation))) ^ x;
    }
    x = (x + keys[(group + 1) % 3]) | 0;
    y = (y + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x, y];
}

// ------------------------------------------------------------------------------------- tableaus

const MOST_ROWS = 40_000;
const MOST_SLOTS = 16;

/** The ready-made tableaus a file carries, each with its numbers in `data`; the first is recommended. */
function tableausFrom(text) {
  let entries;
  try {
    entries = JSON.parse(text);
    if (Object.keys(Object(entries)).length) entries = [...entries].map(tableauFrom);
    else entries = null;
  } catch (error) {
    const reason = error.message.slice(0, 120);
    throw new ModelError(`tableaus: expected a list of tableaus, got another text (${reason}); export again`);
  }
  if (!entries) throw new ModelError("tableaus: expected a list of tableaus, got none; export again");
  return entries;
}

function tableauFrom(entry) {
  const { solver, steps, grid, shape, sigma, times, ends, data } = Object(entry);
  const words = typeof solver === "string" && Number.isInteger(steps) && typeof grid === "string";
  const lists = isList(shape, Number.isInteger) && isList(times, Number.isFinite) && isList(ends, Number.isInteger);
  if (!(words && lists && Number.isFinite(sigma) && typeof data === "string")) throw new Error("a key is missing");
  const rising = ends.every((end, index) => end > (ends[index - 1] ?? -1));
  if (!rising || ends.at(-1) !== shape[0] - 1 || times.length !== ends.length + 1) {
    throw new Error(`${ends.length} step ends in ${shape[0]} rows, ${times.length} times`);
  }
  const numbers = checkTableau(floatsOf(data), shape);
  return { solver, steps, grid, shape, sigma, times, ends, data: numbers };
}

const isList = (value, test) => Array.isArray(value) && value.length > 0 && value.every((item) => test(item));

/** The little-endian float32 numbers in a base64 text. */
function floatsOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** { data, shape, sigma, ends, times } of the caller's own, checked; without `ends` it shows its last row. */
function ownTableau({ data, shape, sigma = 1, ends = [shape?.[0] - 1], times }) {
  checkTableau(data, shape);
  const timeOf = (row) => data[row * shape[1] * shape[2] + shape[1] - 1];
  return { data, shape, sigma, ends, times: times ?? [0, ...ends].map(timeOf) };
}

/** The numbers, if they are a tableau as `runtimes.tableau.dense` makes them. */
function checkTableau(data, shape) {
  const fix = "take one of the model's own";
  if (!(data instanceof Float32Array) || !isList(shape, Number.isInteger) || product(shape) !== data.length || shape.length !== 3) {
    const got = data instanceof Float32Array ? `float32 ${isList(shape, Number.isInteger) ? tuple(shape) : quoted(shape)}` : quoted(data);
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
  const isHead = (head) => [0, 1].includes(head[slots + 1]) && head.slice(slots).every((value) => value >= 0) && Number.isInteger(head[slots + 2] ?? 0);
  const heads = Array.from({ length: rows }, (_, row) => data.subarray(row * width * columns, row * width * columns + columns));
  if (!data.every(Number.isFinite) || !heads.every(isHead)) {
    throw new InputError(`tableau: expected finite numbers, guided 0 or 1 and whole draws, got others; ${fix}`);
  }
  return data;
}

// ----------------------------------------------------------------------------------------- the spec

export const KEYS = {
  spec: {
    name: "text", shape: "sizes", schedule: "text", prediction: "text", condition: "condition",
    sampler: "sampler", value_range: "range", training: "object", version: "whole",
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
function specFrom(text) {
  let raw;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new ModelError(`spec: expected JSON, got ${repr(text.slice(0, 40))} (${error.message}); export the model again`);
  }
  const version = raw?.version;
  if (Number.isInteger(version) && version !== VERSION) {
    const [whose, fix] = version > VERSION ? ["a newer", "update this toolkit"] : ["an unknown", "export again"];
    throw new ModelError(`spec.version: expected ${VERSION}, got ${version}: made by ${whose} version; ${fix}`);
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
  if (of && Array.isArray(value)) return value.forEach((item, index) => typed(of, item, `${where}[${index}]`));
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

// --------------------------------------------------- the bytes: seal, protobuf, graph (see modelfile.py)

const SEAL_KEY = "toolkit.sha256";
const SEAL_BYTES = 2 + 2 + SEAL_KEY.length + 2 + 64;
const LARGEST_FILE = 2 ** 31 - 1;
const MOST_NODES = 20_000;
const MOST_FIELDS = 1_000_000;
const MOST_AXES = 32;
const LONGEST_AXIS = 2 ** 31 - 1;
const DAMAGED = "truncated or changed: SHA-256 differs from the file's own; copy or export it again";

// onnx.proto: field number, kind, name; a name that ends in * may stand many times.
const MODEL = layout(`1 int ir_version,2 bytes producer_name,3 bytes producer_version,4 bytes domain,
  5 int model_version,6 bytes doc_string,7 bytes graph,8 bytes opset_import*,14 bytes metadata_props*,
  20 bytes training_info*,25 bytes functions*`);
const ENTRY = layout("1 bytes key,2 bytes value");
const OPSET = layout("1 bytes domain,2 int version");
const GRAPH = layout(`1 bytes node*,2 bytes name,5 bytes initializer*,10 bytes doc_string,11 bytes input*,
  12 bytes output*,13 bytes value_info*,14 bytes quantization_annotation*,15 bytes sparse_initializer*,
  16 bytes metadata_props*`);
const VALUE = layout("1 bytes name,2 bytes type,3 bytes doc_string,4 bytes metadata_props*");
const NODE = layout(`1 bytes input*,2 bytes output*,3 bytes name,4 bytes op_type,5 bytes attribute*,
  6 bytes doc_string,7 bytes domain,8 bytes overload,9 bytes metadata_props*`);
const ATTRIBUTE = layout(`1 bytes name,2 float f,3 int i,4 bytes s,5 bytes t,6 bytes g*,7 float floats*,
  7 bytes floats*,8 int ints*,8 bytes ints*,9 bytes strings*,10 bytes tensors*,11 bytes graphs*,
  13 bytes doc_string,20 int type,21 bytes ref_attr_name*,22 bytes sparse_tensor*,23 bytes sparse_tensors*`);
const TENSOR = layout(`1 int dims*,1 bytes dims*,2 int data_type,4 float float_data*,4 bytes float_data*,
  5 int int32_data*,5 bytes int32_data*,7 int int64_data*,7 bytes int64_data*,8 bytes name,9 bytes raw_data,
  10 double double_data*,10 bytes double_data*,11 int uint64_data*,11 bytes uint64_data*,12 bytes doc_string,
  13 bytes external_data*,14 int data_location,16 bytes metadata_props*`);
const FORMS = ["network", "likelihood", "sampler", "seeded", "unrolled"];
const SAMPLERS = ["sampler", "seeded"]; // those with a loop inside: one Scan and one If, each around a flat list
const LABELS = ["label", "network.label"]; // outside and inside the loop
const NESTED = ["g*", "graphs*", "sparse_tensor*", "sparse_tensors*", "ref_attr_name*"];
const DATA = ["raw_data", "float_data*", "int32_data*", "int64_data*", "double_data*", "uint64_data*"];
const TYPES = {
  1: ["float32", 32, "float_data*"], 2: ["uint8", 8, "int32_data*"], 3: ["int8", 8, "int32_data*"],
  4: ["uint16", 16, "int32_data*"], 5: ["int16", 16, "int32_data*"], 6: ["int32", 32, "int32_data*"],
  7: ["int64", 64, "int64_data*"], 9: ["bool", 8, "int32_data*"], 10: ["float16", 16, "int32_data*"],
  11: ["float64", 64, "double_data*"], 12: ["uint32", 32, "uint64_data*"], 13: ["uint64", 64, "uint64_data*"],
  16: ["bfloat16", 16, "int32_data*"], 17: ["float8", 8, "int32_data*"], 18: ["float8", 8, "int32_data*"],
  19: ["float8", 8, "int32_data*"], 20: ["float8", 8, "int32_data*"], 21: ["uint4", 4, ""], 22: ["int4", 4, ""],
};

/** The operators a network may hold: runtimes/operators.py, word for word. */
export const OPERATORS = new Set(`
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr
BitwiseXor Cast CastLike Ceil Clip Cos Cosh Div Equal Erf Exp Floor Greater GreaterOrEqual Identity
IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign Sin Sinh
Sqrt Sub Sum Tan Tanh Where Xor
Celu Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink Sigmoid
Softmax Softplus Softsign SwiGLU Swish ThresholdedRelu
Attention AveragePool BatchNormalization CausalConvWithState Conv ConvInteger ConvTranspose DeformConv
Einsum GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization
LRN LSTM LayerNormalization LinearAttention LpNormalization LpPool MatMul MatMulInteger MaxPool
MaxUnpool MeanVarianceNormalization RMSNormalization RNN RotaryEmbedding
ArgMax ArgMin CumProd CumSum Det ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare TopK
CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten
Gather GatherElements GatherND NonZero OneHot Pad Range Reshape Resize ReverseSequence Scatter
ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile Transpose
Trilu Unique Unsqueeze Upsample
AffineGrid BlackmanWindow DFT GridSample HammingWindow HannWindow MelWeightMatrix RoiAlign STFT
DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul QuantizeLinear`.trim().split(/\s+/));

/** The digest of a whole file; ModelError for one whose last bytes are not the seal of the others. */
async function sealOf(bytes) {
  if (bytes.length > LARGEST_FILE) {
    throw new ModelError(`expected at most 2 GiB, got ${bytes.length} bytes; split it`);
  }
  const body = bytes.subarray(0, -SEAL_BYTES);
  const digest = await sha256(body);
  const key = [...SEAL_KEY].map((letter) => letter.charCodeAt(0));
  const value = [...digest].map((letter) => letter.charCodeAt(0));
  const seal = [14 * 8 + 2, SEAL_BYTES - 2, 0x0a, key.length, ...key, 0x12, value.length, ...value];
  const tail = bytes.subarray(body.length);
  if (!body.length || tail.length !== seal.length || !seal.every((byte, at) => byte === tail[at])) {
    throw new ModelError(whyUnsealed(bytes));
  }
  return digest;
}

/** Whose fault a wrong seal is: an empty file, a changed one of ours, a stranger's, or no ONNX. */
function whyUnsealed(bytes) {
  if (!bytes.length) return "expected a model file, got an empty one; copy or export it again";
  if (contains(bytes, "toolkit.spec")) return DAMAGED;
  try {
    const known = fields(bytes, MODEL, { left: MOST_FIELDS });
    if (known.graph) {
      return (
        "expected metadata 'toolkit.spec' and 'toolkit.sha256', got a plain ONNX file; " +
        "write it with 'toolkit export'"
      );
    }
  } catch (error) {
    if (!(error instanceof Broken || error instanceof Short)) throw error;
    if (bytes[0] === 8 && [0x12, 0x3a].includes(bytes[2])) return DAMAGED;
  }
  return "expected an ONNX model file, got something else; write it with 'toolkit export'";
}

function contains(bytes, text) {
  const wanted = [...text].map((letter) => letter.charCodeAt(0));
  for (let at = bytes.indexOf(wanted[0]); at >= 0; at = bytes.indexOf(wanted[0], at + 1)) {
    if (wanted.every((byte, index) => bytes[at + index] === byte)) return true;
  }
  return false;
}

function walkFile(bytes) {
  const budget = { left: MOST_FIELDS };
  const found = fields(bytes, MODEL, budget);
  if (found["functions*"] || found["training_info*"]) {
    throw new ModelError("expected no model functions, got one; inline them first");
  }
  const metadata = {};
  for (const entry of found["metadata_props*"] ?? []) {
    const parts = fields(entry, ENTRY, budget);
    once(parts);
    const key = textOf(parts, "key");
    if (Object.hasOwn(metadata, key)) {
      throw new ModelError(`expected metadata ${repr(key)} once, got it twice; export again`);
    }
    metadata[key] = textOf(parts, "value");
  }
  const blocks = SAMPLERS.includes(metadata["toolkit.form"]) ? ["Scan", "If"] : []; // that may still come
  const graph = { blocks, nodes: 0, sizes: Object.create(null), tables: [], defaults: [] };
  for (const message of found.graph ?? []) walkGraph(message, budget, graph, true);
  once(found);
  if (!("toolkit.spec" in metadata)) {
    throw new ModelError("expected metadata 'toolkit.spec', got none; write it with 'toolkit export'");
  }
  const domains = (found["opset_import*"] ?? []).map((message) => {
    const parts = fields(message, OPSET, budget);
    once(parts);
    return textOf(parts, "domain");
  });
  if (domains.length !== 1 || !["", "ai.onnx"].includes(domains[0])) {
    const words = domains.slice(0, 5).map(repr).join(", ");
    throw new ModelError(`expected the standard operators alone, got domains [${words}]; export again`);
  }
  return { metadata, sizes: graph.sizes, tables: graph.tables, defaults: graph.defaults };
}

function walkGraph(message, budget, into, top = false) {
  const found = fields(message, GRAPH, budget);
  if (found["sparse_initializer*"]) {
    throw new ModelError("expected dense weights, got a sparse tensor; export again");
  }
  const nodes = found["node*"] ?? [];
  if (nodes.length + into.nodes > MOST_NODES) {
    throw new ModelError(`expected at most ${MOST_NODES} nodes, got more; export a smaller one`);
  }
  for (const tensor of found["initializer*"] ?? []) {
    const [name, size] = checkTensor(tensor, budget);
    if (name in into.sizes) {
      throw new ModelError(`weight ${repr(name)}: expected it once, got it twice; export again`);
    }
    into.sizes[name] = size;
  }
  if (top) into.defaults = inputsOf(found).filter((name) => name in into.sizes);
  for (const node of nodes) walkNode(node, budget, into);
  once(found);
}

const inputsOf = (graph) => (graph["input*"] ?? []).map((value) => nameOf(value, VALUE));
const nameOf = (message, layout) => textOf(fields(message, layout, { left: Infinity }), "name");

function walkNode(message, budget, into) {
  const found = fields(message, NODE, budget);
  once(found);
  const operator = textOf(found, "op_type");
  const domain = textOf(found, "domain");
  const block = into.blocks.includes(operator);
  if (!["", "ai.onnx"].includes(domain) || !(block || OPERATORS.has(operator))) {
    const name = domain ? `${domain}.${operator}` : operator;
    throw new ModelError(
      "expected standard operators without control flow or random draws, " +
        `got ${repr(name.slice(0, 80))}; export the network alone`,
    );
  }
  for (const attribute of found["attribute*"] ?? []) {
    const parts = fields(attribute, ATTRIBUTE, budget);
    if (block && parts["g*"]) {
      const later = into.blocks;
      into.blocks = []; // flat again
      for (const graph of parts["g*"]) walkGraph(graph, budget, into);
      into.blocks = later;
    } else if (NESTED.some((word) => word in parts)) {
      throw new ModelError(
        `expected plain nodes, got one with a nested graph or sparse tensor (${operator}); ` +
          "a network has no control flow",
      );
    }
    for (const tensor of [...(parts.t ?? []), ...(parts["tensors*"] ?? [])]) checkTensor(tensor, budget);
    once(parts);
  }
  into.blocks = into.blocks.filter((word) => word !== operator);
  const inputs = (found["input*"] ?? []).map(decode);
  if (operator === "Gather" && inputs.length === 2 && LABELS.includes(inputs[1])) into.tables.push(inputs[0]);
  into.nodes += 1;
}

/** [name, size] of weights that are here, whole, and written down once. */
function checkTensor(message, budget) {
  const found = fields(message, TENSOR, budget);
  if (found["external_data*"] || (found.data_location ?? []).some(Boolean)) {
    throw new ModelError(
      "expected all weights inside, got a tensor stored in another file; export with the weights inside",
    );
  }
  once(found);
  const name = textOf(found, "name");
  const kind = found.data_type?.[0] ?? 0;
  const size = numbersOf(found["dims*"] ?? [], MOST_AXES);
  if (!(kind in TYPES) || size.some((axis) => axis > LONGEST_AXIS)) {
    const what = kind in TYPES ? `axes ${tuple(size)} (negative or too long)` : `type ${kind}`;
    throw new ModelError(`weight ${repr(name)}: expected numbers, got ${what}; export again`);
  }
  const [word, bits, typedSlot] = TYPES[kind];
  const present = DATA.filter((slot) => slot in found);
  if (present.length > 1 || (present.length && !["raw_data", typedSlot].includes(present[0]))) {
    const slots = present.map((slot) => slot.replace("*", "")).join(" and ");
    throw new ModelError(`weight ${repr(name)}: expected ${word} data once, got ${slots}; export again`);
  }
  const count = size.reduce((all, axis) => all * BigInt(axis), 1n);
  let [expected, got, unit] = [count, 0, "numbers"];
  if (present[0] === typedSlot && typedSlot) {
    got = countOf(typedSlot, found[typedSlot]);
  } else {
    [expected, unit] = [(count * BigInt(bits) + 7n) / 8n, "bytes"];
    got = (found.raw_data ?? []).reduce((all, raw) => all + raw.length, 0);
  }
  if (BigInt(got) !== expected) {
    throw new ModelError(
      `weight ${repr(name)}: expected ${expected} ${unit} for ${word} ${tuple(size)}, got ${got}; export again`,
    );
  }
  return [name, size];
}

/** How many numbers a typed data field holds, packed or one by one. */
function countOf(slot, values) {
  const width = { "float_data*": 4, "double_data*": 8 }[slot];
  const each = (value) => {
    if (width) return value.length % width ? -1 : value.length / width;
    return value instanceof Uint8Array ? value.reduce((all, byte) => all + (byte < 128), 0) : 1;
  };
  return values.reduce((all, value) => all + each(value), 0);
}

// ------------------------------------------------------------------ protobuf, read strictly (protobuf.py)

function layout(lines) {
  const kinds = { int: 0, double: 1, bytes: 2, float: 5 };
  return new Map(lines.split(",").map((line) => {
    const [number, kind, name] = line.trim().split(" ");
    return [number * 8 + kinds[kind], name];
  }));
}

/** The values of every field by name, in their order: numbers, or Uint8Arrays of bytes. */
function fields(message, expected, budget) {
  const found = Object.create(null);
  for (const { name, value } of pieces(message, expected, budget)) (found[name] ??= []).push(value);
  return found;
}

/** Every field of a message: { name, value, from, to }, the last two where its bytes stand. */
function* pieces(message, expected, budget) {
  let at = 0;
  while (at < message.length) {
    const from = at;
    let tag, size;
    [tag, at] = varint(message, at);
    const name = expected.get(tag);
    budget.left -= 1;
    if (name === undefined || budget.left < 0) {
      throw new Broken(name === undefined ? "a field that is not expected" : "too many fields");
    }
    const kind = tag & 7;
    if (kind === 0 || kind === 2) [size, at] = varint(message, at);
    else size = kind === 1 ? 8 : 4;
    let value = size;
    if (kind) {
      value = message.subarray(at, at + Number(size));
      at += Number(size);
    }
    yield { name, value, from, to: at };
  }
  if (at > message.length) throw new Broken("a field longer than its message");
}

/**
 * The model without the values its inputs have when they are left out, so that they can be given.
 *
 * A session of onnxruntime in JavaScript does not list such inputs: Node ignores what is fed to them
 * without a word, the browser refuses it. The bytes were checked before; the seal no longer fits.
 */
function withoutDefaults(bytes, defaults) {
  const joined = (parts) => {
    const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  };
  const budget = { left: Infinity };
  const parts = [...pieces(bytes, MODEL, budget)].map(({ name, value, from, to }) => {
    if (name !== "graph") return bytes.subarray(from, to);
    const isDefault = (piece) => piece.name === "initializer*" && defaults.includes(nameOf(piece.value, TENSOR));
    const kept = [...pieces(value, GRAPH, budget)].filter((piece) => !isDefault(piece));
    const message = joined(kept.map((piece) => value.subarray(piece.from, piece.to)));
    return joined([Uint8Array.of(7 * 8 + 2, ...varintOf(message.length)), message]);
  });
  return joined(parts);
}

const varintOf = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...varintOf(Math.floor(value / 128))]);

/** A number of up to 64 bits, low ones first, and where the next field starts. */
function varint(message, at) {
  let value = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    const byte = message[at++];
    if (byte === undefined) throw new Short();
    if (shift === 49) value = BigInt(value);
    value = shift < 49 ? value + (byte & 127) * 2 ** shift : value | (BigInt(byte & 127) << BigInt(shift));
    if (byte < 128) {
      if (value >= 2n ** 64n) break;
      return [value <= LARGEST_SEED ? Number(value) : value, at];
    }
  }
  throw new Broken("a number of more than 64 bits");
}

function once(found) {
  for (const [name, values] of Object.entries(found)) {
    if (values.length > 1 && !name.endsWith("*")) throw new Broken(`${name} stands twice`);
  }
}

function numbersOf(values, most) {
  const numbers = [];
  for (const value of values) {
    if (value instanceof Uint8Array) {
      for (let at = 0, number; at < value.length && numbers.length <= most; numbers.push(number)) {
        [number, at] = varint(value, at);
      }
    } else numbers.push(value);
    if (numbers.length > most) throw new Broken("too many numbers");
  }
  return numbers;
}

function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Short();
  }
}

const textOf = (found, name) => (found[name] ? decode(found[name][0]) : "");

/** SHA-256 in hex; by hand where a page is not served securely and the browser keeps its own to itself. */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  const words = subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : digestOf(bytes);
  return [...words].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** FIPS 180-4, section 6.2. */
export function digestOf(bytes) {
  const primes = [];
  for (let number = 2; primes.length < 64; number++) if (primes.every((prime) => number % prime)) primes.push(number);
  const fraction = (value) => ((value - Math.floor(value)) * 2 ** 32) | 0;
  const rounds = primes.map((prime) => fraction(Math.cbrt(prime)));
  const state = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
  const length = Math.ceil((bytes.length + 9) / 64) * 64;
  const whole = bytes.length - (bytes.length % 64);
  const end = new Uint8Array(length - whole);
  end.set(bytes.subarray(whole));
  end[bytes.length - whole] = 0x80;
  new DataView(end.buffer).setUint32(end.length - 8, Math.floor(bytes.length / 2 ** 29));
  new DataView(end.buffer).setUint32(end.length - 4, bytes.length << 3);
  const w = new Int32Array(64);
  for (let start = 0; start < length; start += 64) {
    const block = start < whole ? bytes.subarray(start, start + 64) : end.subarray(start - whole, start - whole + 64);
    compress(state, block, rounds, w);
  }
  return Uint8Array.from(state.flatMap((word) => [word >>> 24, word >>> 16, word >>> 8, word]));
}

function compress(state, block, rounds, w) {
  const turned = (word, by) => (word >>> by) | (word << (32 - by));
  for (let i = 0; i < 64; i++) {
    if (i < 16) {
      w[i] = (block[4 * i] << 24) | (block[4 * i + 1] << 16) | (block[4 * i + 2] << 8) | block[4 * i + 3];
      continue;
    }
    const [a, b] = [w[i - 15], w[i - 2]];
    const low = turned(a, 7) ^ turned(a, 18) ^ (a >>> 3);
    const high = turned(b, 17) ^ turned(b, 19) ^ (b >>> 10);
    w[i] = w[i - 16] + low + w[i - 7] + high;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const t1 = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + rounds[i] + w[i]) | 0;
    const t2 = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => { state[index] = (state[index] + word) | 0; });
}

// ------------------------------------------------------------------------ words, as Python writes them

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
  const scored = choices.map((choice) => [(2 * common(choice, word)) / (choice.length + word.length), choice]);
  const good = scored.filter(([score]) => score >= 0.6);
  return good.sort((a, b) => b[0] - a[0] || (b[1] > a[1] ? 1 : -1))[0]?.[1];
}

/** repr(value) in one line of at most so many characters. */
function quoted(value, most = 80) {
  const text = repr(value).split(/\s+/).join(" ").trim();
  return text.length <= most ? text : `${text.slice(0, most)}...`;
}

function repr(value) {
  if (typeof value === "string") {
    const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
    const escapes = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };
    const inside = [...value].map((c) => {
      if (c === quote) return `\\${c}`;
      if (c in escapes) return escapes[c];
      const code = c.codePointAt(0);
      if (!/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(c)) return c;
      if (code < 256) return `\\x${code.toString(16).padStart(2, "0")}`;
      return code < 65536 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
    });
    return quote + inside.join("") + quote;
  }
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number" && !Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (typeof value === "object") return `{${Object.entries(value).map(([k, v]) => `${repr(k)}: ${repr(v)}`).join(", ")}}`;
  return String(value);
}

const tuple = (values) => `(${values.join(", ")}${values.length === 1 ? "," : ""})`;
const product = (sizes) => sizes.reduce((all, size) => all * size, 1);
