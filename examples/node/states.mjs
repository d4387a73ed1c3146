// Every state of one run, float32 one after the other, the noise first: `toolkit compare --node` reads them.
//     node states.mjs digits-sampler.onnx request.json states.f32
// request: what `stream` takes, arrays as lists, and n. Prints the peak memory of the process in megabytes.
import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { load, stream } from "../../toolkit/web/client/toolkit.js";

const [path, asked, out] = process.argv.slice(2);
const { n, tableau, context, ...request } = JSON.parse(readFileSync(asked, "utf8"));
tableau.data = Float32Array.from(tableau.data);
if (context) request.context = Float32Array.from(context);

const states = [];
try {
  const model = await load(ort, readFileSync(path), { name: path });
  for await (const { x } of stream(model, n, { ...request, tableau })) states.push(Buffer.from(x.slice().buffer));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
writeFileSync(out, Buffer.concat(states));
console.log(peak());

/** Linux: getrusage would count the process that started this one too, before its exec. */
function peak() {
  try {
    return Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024;
  } catch {
    return process.resourceUsage().maxRSS / 1024;
  }
}
