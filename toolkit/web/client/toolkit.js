/**
 * sample(model, n) -> float32 (n, ...shape): a model file of the form `sampler`, in Node or a browser.
 *
 *     import ort from "onnxruntime-node";                       // or "onnxruntime-web/wasm", "/webgpu"
 *     const model = await load(ort, bytes, { name: "digits.onnx" });
 *     for await (const state of stream(model, 4, { label: 7, seed: 0 })) draw(state.x);
 *
 * The file carries its solvers as tables of numbers, so there is none here. What stands here is what
 * Python does around them: the same checks in the same words, the same noise to the bit, and the table
 * fed in pieces, a step each. Each file beside this one is the twin of the one of its name in runtimes/.
 * Nothing is imported from elsewhere: the caller hands in onnxruntime.
 */

import { conditionOf, guidanceOf, seedRows } from "./conditions.js";
import { match } from "./contracts.js";
import { FORMS, sealOf, walkFile, withoutDefaults } from "./modelfile.js";
import { noise } from "./noise.js";
import { Broken, Short } from "./protobuf.js";
import { specFrom } from "./spec.js";
import { ownTableau, tableausFrom } from "./tableaus.js";
import { InputError, ModelError, choose, product, quoted, repr, tuple, whole } from "./words.js";

export { noise, seedRows, InputError, ModelError };

const MOST_SAMPLES = 10_000_000;
const MOST_BATCH_BYTES = 2 ** 30;
const MOST_AT_ONCE = 2500; // samples times rows of a conditional run in one piece

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
    const reason = String(error.message ?? error)
      .split(/\s+/)
      .join(" ")
      .slice(0, 200);
    const newer = /Opset|IR version/.test(reason);
    const fix = newer ? "made by a newer version; update onnxruntime" : "export it again";
    throw new ModelError(`${name}: expected a graph ONNX Runtime opens, got: ${reason}; ${fix}`);
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
      throw new ModelError(
        `expected the form ${FORMS.join(", ")}, got ${repr(form.slice(0, 40))}; update this toolkit`,
      );
    }
    if (form !== "sampler") {
      throw new ModelError(
        `expected a file of the form 'sampler', got ${repr(form)}; write one with toolkit export --form sampler`,
      );
    }
    const spec = specFrom(metadata["toolkit.spec"]);
    return {
      ...walked,
      name,
      spec,
      form,
      digest,
      tableaus: tableausFrom(metadata["toolkit.tableaus"] ?? ""),
    };
  } catch (error) {
    if (error instanceof InputError) throw new ModelError(`${name}: ${error.message}`);
    if (!(error instanceof Broken || error instanceof Short)) throw error;
    const reason = error instanceof Broken ? error.message : "cut short or no text";
    throw new ModelError(`${name}: expected an ONNX protobuf, got broken fields (${reason}); export again`);
  }
}

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

function planOf(
  model,
  n,
  { label, context, seed = 0, guidance, solver, steps, tableau, preview = true, signal },
) {
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
  // noise, and what depends on the condition, is made before a piece runs: piece by piece, to need less room
  const much = columns === width + 2 || (feeds.guidance && n * rows > MOST_AT_ONCE);
  for (const end of preview || much ? table.ends : [rows - 1]) {
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
