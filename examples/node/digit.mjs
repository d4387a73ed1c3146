// A digit from a file of the form `seeded`, with onnxruntime-node and nothing else:
//     node digit.mjs digits-seeded.onnx 7 0
import ort from "onnxruntime-node";

const [path, label = "7", seed = "0"] = process.argv.slice(2);
const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
const int64 = (text) => new ort.Tensor("int64", [BigInt(text)], [1]);
const { image } = await session.run({ label: int64(label), seed: int64(seed) });
const [, height, width] = image.dims;
for (let row = 0; row < height; row++) {
  const pixels = image.data.subarray(row * width, (row + 1) * width);
  console.log([...pixels].map((pixel) => " .:-=+*#%@"[Math.floor(pixel / 25.6)].repeat(2)).join(""));
}
