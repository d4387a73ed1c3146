/** The bytes of a model file, checked before onnxruntime sees them: runtimes/modelfile.py, word for word. */

import { GRAPH, MOST_FIELDS, TENSOR, nameOf, walkGraph } from "./graph.js";
import { Broken, Short, fields, layout, once, pieces, textOf, varintOf } from "./protobuf.js";
import { sha256 } from "./sha256.js";
import { ModelError, repr } from "./words.js";

export const FORMS = ["network", "likelihood", "sampler", "seeded", "unrolled"];
const SAMPLERS = ["sampler", "seeded"]; // those with a loop inside: one Scan and one If, each around a flat list
const SEAL_KEY = "toolkit.sha256";
const SEAL_BYTES = 2 + 2 + SEAL_KEY.length + 2 + 64;
const LARGEST_FILE = 2 ** 31 - 1;
const DAMAGED = "truncated or changed: SHA-256 differs from the file's own; copy or export it again";

// onnx.proto: field number, kind, name; a name that ends in * may stand many times.
const MODEL = layout(`1 int ir_version,2 bytes producer_name,3 bytes producer_version,4 bytes domain,
  5 int model_version,6 bytes doc_string,7 bytes graph,8 bytes opset_import*,14 bytes metadata_props*,
  20 bytes training_info*,25 bytes functions*`);
const ENTRY = layout("1 bytes key,2 bytes value");
const OPSET = layout("1 bytes domain,2 int version");

/** The digest of a whole file; ModelError for one whose last bytes are not the seal of the others. */
export async function sealOf(bytes) {
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

export function walkFile(bytes) {
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
  const graph = { blocks, nodes: 0, sizes: Object.create(null), tables: [], defaults: [], slices: new Map() };
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

/**
 * The model without the values its inputs have when they are left out, so that they can be given.
 *
 * A session of onnxruntime in JavaScript does not list such inputs: Node ignores what is fed to them
 * without a word, the browser refuses it. The bytes were checked before; the seal no longer fits.
 */
export function withoutDefaults(bytes, defaults) {
  const joined = (parts) => {
    const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  };
  const budget = { left: Infinity };
  const parts = [...pieces(bytes, MODEL, budget)].map(({ name, value, from, to }) => {
    if (name !== "graph") return bytes.subarray(from, to);
    const isDefault = (piece) =>
      piece.name === "initializer*" && defaults.includes(nameOf(piece.value, TENSOR));
    const kept = [...pieces(value, GRAPH, budget)].filter((piece) => !isDefault(piece));
    const message = joined(kept.map((piece) => value.subarray(piece.from, piece.to)));
    return joined([Uint8Array.of(7 * 8 + 2, ...varintOf(message.length)), message]);
  });
  return joined(parts);
}
