// What tests ask of toolkit.js: a JSON list of tasks on stdin, the list of answers on stdout.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

import { LARGEST_SEED } from "../toolkit/web/client/conditions.js";
import { OPERATORS } from "../toolkit/web/client/graph.js";
import { FORMS } from "../toolkit/web/client/modelfile.js";
import { noise, threefry } from "../toolkit/web/client/noise.js";
import { digestOf } from "../toolkit/web/client/sha256.js";
import { KEYS, VERSION } from "../toolkit/web/client/spec.js";
import * as toolkit from "../toolkit/web/client/toolkit.js";

const require = createRequire(new URL("../examples/node/package.json", import.meta.url));
const PLACES = { node: "onnxruntime-node", wasm: "onnxruntime-web/wasm" };
const runtimes = {};
async function runtime(name) {
  if (!runtimes[name]) {
    const found = await import(pathToFileURL(require.resolve(PLACES[name])));
    runtimes[name] = found.default ?? found;
    if (name === "wasm") Object.assign(runtimes[name].env.wasm, { numThreads: 1 });
  }
  return runtimes[name];
}

const packed = (numbers) =>
  Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength).toString("base64");
// JSON has no NaN and no typed arrays: {"number": "nan"}, {"floats": base64}, {"bytes": base64}
function unpacked(key, value) {
  if (value?.number !== undefined) return { nan: NaN, inf: Infinity, "-inf": -Infinity }[value.number];
  if (value?.bytes !== undefined) return Uint8Array.from(Buffer.from(value.bytes, "base64"));
  if (value?.floats === undefined) return value;
  return new Float32Array(Uint8Array.from(Buffer.from(value.floats, "base64")).buffer);
}

async function refused(call) {
  try {
    const done = await call();
    return { ok: done };
  } catch (error) {
    return { error: error.message, kind: error.name };
  }
}

const models = {};
const load = async (ort, path) =>
  (models[`${ort} ${path}`] ??= await toolkit.load(await runtime(ort), readFileSync(path), { name: path }));

const verbs = {
  noise: ({ seeds, size, draw }) => packed(noise(seeds, size, draw)),
  threefry: ({ key, counter }) => threefry(...key, ...counter).map((word) => word >>> 0),
  digest: ({ content }) => Buffer.from(digestOf(content)).toString("hex"),
  constants: () => ({
    operators: [...OPERATORS],
    keys: KEYS,
    version: VERSION,
    seed: LARGEST_SEED,
    forms: FORMS,
  }),
  check: ({ path }) => refused(async () => (await toolkit.check(readFileSync(path), { name: path })).digest),
  open: ({ ort, path }) => refused(async () => (await load(ort, path)).spec.name),
  sample: ({ ort, path, n, request }) =>
    refused(async () => packed(await toolkit.sample(await load(ort, path), n, request))),
  stream: ({ ort, path, n, request, stop }) =>
    refused(async () => {
      const states = [];
      const ending = new AbortController();
      for await (const state of toolkit.stream(await load(ort, path), n, {
        ...request,
        signal: ending.signal,
      })) {
        states.push({ ...state, x: packed(state.x) });
        if (state.step === stop?.abort) ending.abort();
        if (state.step === stop?.leave) break;
      }
      return states;
    }),
};

const answers = [];
for (const task of JSON.parse(readFileSync(0, "utf8"), unpacked)) answers.push(await verbs[task.do](task));
process.stdout.write(JSON.stringify(answers));
