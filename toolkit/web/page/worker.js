/**
 * The model, off the page's thread: opens the file, runs it, sends every state.
 *
 * In:  { do: "open", name, files, backend } then { do: "draw", id, n, request }, { do: "stop" }
 * Out: { is: "loading", share } { is: "opened", ... } { is: "state", id, x, ... } { is: "drawn", id, ms } { is: "wrong", id, text }
 *
 * files: toolkit.js, the model, onnxruntime's script and its WebAssembly, each { url, integrity } or { blob }.
 * What comes from another host is held against its hash.
 */

let toolkit;
let model;
let running = new AbortController();
let last = Promise.resolve();

self.onmessage = async ({ data }) => {
  const { do: verb, id } = data;
  try {
    if (verb === "stop") running.abort();
    else await { open, draw }[verb](data);
  } catch (error) {
    if (error?.name === "AbortError") self.postMessage({ is: "stopped", id });
    else
      self.postMessage({
        is: "wrong",
        id,
        during: verb,
        kind: error?.name,
        text: error?.message ?? String(error),
      });
  }
};

async function open({ name, files, backend }) {
  const started = performance.now();
  const shares = [0, 0];
  const progress = (index) => (share) => {
    shares[index] = share;
    self.postMessage({ is: "loading", share: (shares[0] + shares[1]) / 2 });
  };
  const [code, bytes, script, binary] = await Promise.all([
    bytesOf(files[0]),
    bytesOf(files[1], progress(0)),
    bytesOf(files[2]),
    bytesOf(files[3], progress(1)),
  ]);
  toolkit = await moduleOf(code);
  const ort = await moduleOf(script);
  ort.env.wasm.wasmBinary = binary.buffer;
  ort.env.wasm.numThreads = 1; // small networks gain nothing from more, and a plain host allows no more
  ort.env.logLevel = "error";
  model = await toolkit.load(ort, bytes, { name, session: { executionProviders: [backend] } });
  const tableaus = model.tableaus.map(({ data, ...rest }) => rest);
  const { spec, digest } = model;
  const ms = performance.now() - started;
  self.postMessage({ is: "opened", spec, tableaus, digest, backend, size: bytes.length, ms });
}

/** One run at a time: a new one ends the one before and waits until it has let go of the session. */
function draw(asked) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  last = last.catch(() => {}).then(() => run(asked, signal));
  return last;
}

async function run({ id, n, request }, signal) {
  signal.throwIfAborted();
  const started = performance.now();
  for await (const { x, step, steps, t } of toolkit.stream(model, n, { ...request, signal })) {
    const copy = x.slice();
    self.postMessage({ is: "state", id, x: copy, step, steps, t }, [copy.buffer]);
    await new Promise((resolve) => {
      channel.port1.onmessage = resolve;
      channel.port2.postMessage(0);
    }); // let "stop" in
  }
  self.postMessage({ is: "drawn", id, ms: performance.now() - started });
}

const channel = new MessageChannel();

/** A module from its source, by a URL of this worker's own: a page opened from a file can lend it none. */
async function moduleOf(source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const found = await import(url);
  URL.revokeObjectURL(url);
  return found;
}

/** The bytes of a file, with the share that has come told to `progress`. */
async function bytesOf({ url, integrity, blob }, progress) {
  if (blob) return new Uint8Array(await blob.arrayBuffer());
  let answer;
  try {
    answer = await fetch(url, integrity ? { integrity, mode: "cors" } : {});
  } catch (error) {
    throw new Error(
      `${url}: expected a file, got ${error.message}; check the connection and that the whole folder was copied`,
    );
  }
  if (!answer.ok) {
    throw new Error(
      `${url}: expected a file, got status ${answer.status}; copy the whole folder, or run toolkit web again`,
    );
  }
  const total = Number(answer.headers.get("content-length")) || 0;
  const parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    if (total) progress?.(Math.min(size / total, 1));
  }
  progress?.(1);
  const all = new Uint8Array(size);
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}
