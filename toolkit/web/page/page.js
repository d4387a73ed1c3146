/**
 * The page: what a person asks for goes to the worker, the states that come back are shown.
 *
 * States come faster than an eye can follow, so they wait in a line and are shown one by one; what the
 * run took is measured where it ran. `window.last` is the last whole run, for whoever wants the numbers.
 */

import { isPoints, paint } from "./paint.js";

const $ = (id) => document.getElementById(id);
const config = JSON.parse($("config").textContent);
const POINTS = 600; // of a model of points in the plane
const KEPT = 24; // runs
const SHOWN = 900; // milliseconds that a run takes on the screen, if it was faster than that
const still = matchMedia("(prefers-reduced-motion: reduce)");

let worker;
let model; // { spec, tableaus, digest, backend, size, ms }
let run = null; // { id, n, request, states, shown, ms }
let past = [];
let count = 9;
let ids = 0;

// ------------------------------------------------------------------------------------ opening

/** What stands between the page and its samples, and what to do about it. */
function wrong(title, text) {
  document.body.dataset.state = "broken";
  $("notice-title").textContent = title;
  $("notice-text").textContent = text;
  $("progress").hidden = true;
  $("draw").disabled = true;
}

/** A file of the site: { url } beside this page, or { blob } packed inside it. */
async function fileOf(name, integrity) {
  const packed = $(`file:${name}`);
  if (!packed) return { url: new URL(name, location.href).href, integrity };
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const type = name.endsWith("js") ? "text/javascript" : "application/octet-stream";
  return { blob: new Blob([await new Response(plain).arrayBuffer()], { type }) };
}

async function open(backend) {
  if (location.protocol === "file:" && !$("file:worker.js")) {
    return wrong(
      "This folder needs a server",
      "A browser opens no models from a plain folder. Run “python -m http.server” in it and go to " +
        "http://localhost:8000, or write one self-contained file: toolkit web MODEL.onnx --inline --out page.html",
    );
  }
  document.body.dataset.state = "opening";
  worker?.terminate();
  const { script, wasm } = config.runtimes[backend];
  const [code, ...files] = await Promise.all([
    fileOf("worker.js"),
    fileOf("toolkit.js"),
    fileOf(config.model),
    fileOf(script.name, script.integrity),
    fileOf(wasm.name, wasm.integrity),
  ]);
  worker = new Worker(code.url ?? URL.createObjectURL(code.blob));
  worker.onmessage = ({ data }) => heard[data.is](data);
  worker.onerror = (event) => {
    event.preventDefault();
    wrong(
      "This page did not start",
      `${event.message || "worker.js did not load"}. Load it again, or copy the whole folder again.`,
    );
  };
  worker.postMessage({ do: "open", backend, name: config.name, files });
}

const heard = {
  loading({ share }) {
    if (document.body.dataset.state !== "opening") return;
    $("progress").value = share;
    $("notice-text").textContent = `${Math.round(share * 100)} %`;
  },
  opened(what) {
    const first = !model;
    model = what;
    if (first) describe();
    $("draw").disabled = false;
    document.body.dataset.state = "ready";
    draw();
  },
  state({ id, x, step, steps, t }) {
    if (run?.id !== id) return;
    run.states.push({ x, step, t });
    run.steps = steps;
    if (step > 0) $("status").textContent = `Step ${step} of ${steps} …`;
  },
  drawn({ id, ms }) {
    if (run?.id === id) finished(ms);
  },
  stopped({ id }) {
    if (run?.id !== id) return;
    idle();
    $("status").textContent = `Stopped after step ${run.states.length - 1} of ${run.steps}.`;
  },
  wrong({ id, during, kind, text }) {
    if (during === "open") {
      const fix = kind === "ModelError" ? "" : " Load the page again, or choose another backend.";
      return fallBack(text) || wrong("This model did not open", text + fix);
    }
    if (run && run.id !== id) return;
    idle();
    $("status").className = "wrong";
    $("status").textContent = text;
  },
};

/** A graphics card that does not do it is no reason to show nothing: take wasm, and say so. */
function fallBack(text) {
  if ($("backend").value !== "webgpu") return false;
  $("backend").value = "wasm";
  $("about").textContent = `WebGPU did not work here (${text.slice(0, 160)}); running on WebAssembly.`;
  open("wasm");
  return true;
}

async function start() {
  const adapter = "webgpu" in config.runtimes ? await adapterOf() : null;
  const words = { wasm: "CPU (WebAssembly)", webgpu: `GPU (WebGPU${adapter ? `, ${adapter}` : ""})` };
  for (const name of Object.keys(config.runtimes)) {
    if (name === "webgpu" && !adapter) continue;
    $("backend").append(new Option(words[name], name));
  }
  $("backend-row").hidden = $("backend").options.length < 2;
  const asked = new URLSearchParams(location.hash.slice(1)).get("backend");
  if (asked && [...$("backend").options].some((option) => option.value === asked)) $("backend").value = asked;
  await open($("backend").value);
}

async function adapterOf() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return adapter ? adapter.info?.description || adapter.info?.vendor || "this device" : null;
  } catch {
    return null;
  }
}

// ------------------------------------------------------------------------------- what can be asked

function describe() {
  const { spec, tableaus } = model;
  const { condition, shape } = spec;
  document.title = spec.name;
  $("title").textContent = spec.name;
  const what = isPoints(model.spec) ? "points in the plane" : `${shape[0]} × ${shape[1]} pixels`;
  const classes = condition.kind === "label" ? `, ${condition.classes} labels` : "";
  $("facts").textContent =
    `${what[0].toUpperCase()}${what.slice(1)}${classes}. Noise becomes data on this device; nothing is sent anywhere.`;
  const size = model.size > 1e6 ? `${(model.size / 1e6).toFixed(1)} MB` : `${Math.ceil(model.size / 1e3)} kB`;
  $("about").textContent ||= `${config.name}, ${size}, SHA-256 ${model.digest.slice(0, 12)}… checked.`;
  if (condition.kind === "label") labels(condition);
  $("count-row").hidden = isPoints(model.spec);
  if (!isPoints(model.spec)) {
    const ratio = Math.min(Math.max(shape[1] / shape[0], 0.8), 1.6);
    document.querySelector(".frame").style.setProperty("--ratio", ratio);
  }
  for (const n of [1, 4, 9, 16])
    choice($("counts"), "count", n, n, n === count, () => {
      count = n;
      draw();
    });
  for (const solver of new Set(tableaus.map((one) => one.solver)))
    $("solver").append(new Option(solver.replaceAll("_", " "), solver));
  $("guidance-row").hidden = condition.kind === "none";
  $("guidance").max = Math.max(5, 2 * spec.sampler.guidance);
  $("guidance").value = spec.sampler.guidance;
  stepsOf();
  recall();
  fill();
}

function labels({ classes, names }) {
  const words = Array.from({ length: classes }, (_, index) => names[index] ?? String(index));
  const wide = words.some((word) => word.length > 4);
  $("keys").className = wide ? "wide" : "";
  words.forEach((word, index) =>
    choice($("keys"), "label", index, word, index === Math.min(7, classes - 1), draw),
  );
  $("labels").hidden = false;
}

function choice(where, name, value, word, checked, then) {
  const input = Object.assign(document.createElement("input"), { type: "radio", name, value, checked });
  const label = document.createElement("label");
  label.append(input, document.createTextNode(word));
  input.addEventListener("change", then);
  where.append(label);
}

function stepsOf() {
  const known = model.tableaus.filter((one) => one.solver === $("solver").value);
  const before = Number($("steps").value);
  const options = known.map((one) => new Option(`${one.steps} (${one.shape[0]} calls)`, one.steps));
  $("steps").replaceChildren(...options);
  if (known.some((one) => one.steps === before)) $("steps").value = before;
}

const picked = (name) => document.querySelector(`input[name="${name}"]:checked`);

function asked() {
  const request = {
    seed: Number($("seed").value),
    solver: $("solver").value,
    steps: Number($("steps").value),
  };
  if (!/^\d+$/.test($("seed").value.trim())) request.seed = $("seed").value;
  const { kind } = model.spec.condition;
  if (kind === "label") request.label = Number(picked("label").value);
  if (kind !== "none") request.guidance = Number($("guidance").value);
  return { n: isPoints(model.spec) ? POINTS : count, request };
}

/** The address says what is shown, so that it can be sent to somebody. */
function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  const set = (id) => words.has(id) && ($(id).value = words.get(id));
  if (words.has("solver") && [...$("solver").options].some((option) => option.value === words.get("solver")))
    set("solver");
  stepsOf();
  if (words.has("steps") && [...$("steps").options].some((option) => option.value === words.get("steps")))
    set("steps");
  set("seed");
  set("guidance");
  for (const name of ["label", "count"]) {
    const input = [...document.querySelectorAll(`input[name="${name}"]`)].find(
      (one) => one.value === words.get(name),
    );
    if (input) input.checked = true;
  }
  if (picked("count")) count = Number(picked("count").value);
}

function remember({ n, request }) {
  const words = new URLSearchParams({ ...request, ...(isPoints(model.spec) ? {} : { count: n }) });
  if ($("backend").value !== "wasm") words.set("backend", $("backend").value);
  try {
    history.replaceState(null, "", `#${words}`);
  } catch {
    // an address that cannot be written is no loss
  }
}

// ---------------------------------------------------------------------------------------- drawing

function draw() {
  if (!model) return;
  const what = asked();
  fill();
  remember(what);
  run = { ...what, id: ++ids, states: [], shown: -1, steps: 1, due: 0 };
  document.body.dataset.state = "drawing";
  $("draw").textContent = "Stop";
  $("status").className = "";
  $("time").disabled = true;
  worker.postMessage({ do: "draw", ...run });
  requestAnimationFrame(advance);
}

function finished(ms) {
  run.ms = ms;
  idle();
  const { backend } = model;
  const calls = model.tableaus.find(
    (one) => one.solver === run.request.solver && one.steps === run.request.steps,
  ).shape[0];
  const time = ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
  const where = backend === "webgpu" ? "GPU (WebGPU)" : "CPU (WebAssembly)";
  const what = run.n === 1 ? "One sample" : `${run.n} ${isPoints(model.spec) ? "points" : "samples"}`;
  $("status").textContent = `${what} in ${time} on the ${where}: ${run.steps} steps, ${calls} network calls.`;
  window.last = {
    ...run.request,
    n: run.n,
    x: run.states.at(-1).x,
    states: run.states.length,
    ms,
    backend,
  };
  keep();
}

function idle() {
  document.body.dataset.state = "ready";
  $("draw").textContent = "Draw";
  $("time").max = Math.max(run.states.length - 1, 1);
}

/** Show the next state when its time has come; on to the last, or to the end of a stopped run. */
function advance(now) {
  const { states, shown, steps } = run;
  const over = document.body.dataset.state !== "drawing";
  if (shown < states.length - 1 && now >= run.due) {
    const next = still.matches && over ? states.length - 1 : shown + 1;
    show(next);
    run.due = now + (still.matches ? 0 : SHOWN / steps);
  }
  if (!over || run.shown < states.length - 1) requestAnimationFrame(advance);
  else $("time").disabled = false;
}

function show(index) {
  const state = run.states[index];
  if (!state) return;
  run.shown = index;
  paint($("canvas"), state.x, run.n, model.spec);
  $("time").max = Math.max(run.steps, 1);
  $("time").value = index;
  $("time").setAttribute("aria-valuetext", `step ${index} of ${run.steps}`);
  $("clock").textContent = `t\u202f=\u202f${state.t.toFixed(2)}`;
  $("canvas").setAttribute(
    "aria-label",
    `${run.n} samples of ${model.spec.name}, step ${index} of ${run.steps}`,
  );
  fill();
}

/** Sliders show how full they are, and a long seed fits its field. */
function fill() {
  $("seed").classList.toggle("long", $("seed").value.length > 8);
  for (const slider of document.querySelectorAll('input[type="range"]')) {
    slider.style.setProperty("--filled", (slider.value - slider.min) / (slider.max - slider.min || 1));
  }
  $("weight").textContent = Number($("guidance").value).toFixed(1);
}

// ------------------------------------------------------------------------------------------- past

function keep() {
  const key = JSON.stringify([run.n, run.request]);
  if (!past.some((one) => one.key === key)) {
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const word = document.createElement("span");
    const { label, seed, solver, steps } = run.request;
    const name = label === undefined ? "" : (model.spec.condition.names[label] ?? label);
    word.textContent = [name, `seed ${seed}`].filter(String).join(" · ");
    button.type = "button";
    button.title = `${name} seed ${seed}, ${solver}, ${steps} steps`;
    button.append(canvas, word);
    const { n, request } = run;
    button.addEventListener("click", () => again(n, request));
    const item = document.createElement("li");
    item.append(button);
    $("history").prepend(item);
    $("past").hidden = false;
    paint(canvas, run.states.at(-1).x, run.n, model.spec);
    past.unshift({ key, item, button });
    for (const old of past.splice(KEPT)) old.item.remove();
  }
  for (const one of past) one.button.setAttribute("aria-current", String(one.key === key));
}

/** The same request gives the same samples, so a run is kept as what was asked for. */
function again(n, { label, seed, solver, steps, guidance }) {
  $("seed").value = seed;
  $("solver").value = solver;
  stepsOf();
  $("steps").value = steps;
  if (guidance !== undefined) $("guidance").value = guidance;
  for (const [name, value] of [
    ["label", label],
    ["count", n],
  ]) {
    const input = [...document.querySelectorAll(`input[name="${name}"]`)].find(
      (one) => one.value === String(value),
    );
    if (input) input.checked = true;
  }
  if (!isPoints(model.spec)) count = n;
  draw();
}

// ---------------------------------------------------------------------------------------- controls

function seedBy(change) {
  const seed = Number($("seed").value);
  const next =
    change === null ? Math.floor(Math.random() * 1e6) : (Number.isSafeInteger(seed) ? seed : 0) + change;
  $("seed").value = Math.max(next, 0);
  draw();
}

function replay() {
  if (!run?.states.length || document.body.dataset.state !== "ready") return;
  run.shown = -1;
  run.due = 0;
  requestAnimationFrame(advance);
}

function save() {
  const link = document.createElement("a");
  $("canvas").toBlob((blob) => {
    link.href = URL.createObjectURL(blob);
    link.download = `${model.spec.name}-${location.hash.slice(1).replace(/[^\w.=-]+/g, "-")}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

$("panel").addEventListener("submit", (event) => {
  event.preventDefault();
  if (document.body.dataset.state === "drawing") worker.postMessage({ do: "stop" });
  else draw();
});
$("before").addEventListener("click", () => seedBy(-1));
$("after").addEventListener("click", () => seedBy(1));
$("dice").addEventListener("click", () => seedBy(null));
$("seed").addEventListener("change", draw);
$("solver").addEventListener("change", () => {
  stepsOf();
  draw();
});
$("steps").addEventListener("change", draw);
$("guidance").addEventListener("input", fill);
$("guidance").addEventListener("change", draw);
$("backend").addEventListener("change", () => open($("backend").value));
$("time").addEventListener("input", () => show(Number($("time").value)));
addEventListener("resize", () => run && run.shown >= 0 && show(run.shown));

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=radio]), select");
  if (!model || event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const digit = [...document.querySelectorAll('input[name="label"]')].find(
    (input) => input.parentElement.textContent.trim() === event.key,
  );
  const radio = event.target.type === "radio";
  const doing = {
    r: () => seedBy(null),
    p: replay,
    s: save,
    ...(radio ? { Enter: draw } : { ArrowLeft: () => seedBy(-1), ArrowRight: () => seedBy(1) }),
    ...(event.target === document.body ? { Enter: draw } : {}),
  }[event.key];
  if (!digit && !doing) return;
  event.preventDefault();
  if (digit) digit.click();
  else doing();
});

if ("serviceWorker" in navigator && location.protocol.startsWith("http") && config.offline) {
  navigator.serviceWorker.register("sw.js").catch(() => {});
}
start().catch((error) => wrong("This page did not start", `${error.message}. Load it again.`));
