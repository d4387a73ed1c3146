// Samples from a file of the form `sampler`, checked first and drawn step by step:
//     node sample.mjs digits-sampler.onnx 7 0 digit.pgm
import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { load, stream } from "../../toolkit/web/client/toolkit.js";

const [path, label = "7", seed = "0", out = "digit.pgm"] = process.argv.slice(2);
const model = await load(ort, readFileSync(path), { name: path });
let state;
for await (state of stream(model, 1, { label: Number(label), seed: Number(seed) })) {
  process.stderr.write(`\rstep ${state.step} of ${state.steps}`);
}
const [height, width] = model.spec.shape;
const pixels = Uint8Array.from(state.x, (value) => Math.min(Math.max((value + 1) * 127.5, 0), 255));
writeFileSync(out, Buffer.concat([Buffer.from(`P5\n${width} ${height} 255\n`), pixels]));
process.stderr.write(`\n${out}\n`);
