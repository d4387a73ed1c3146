/** The wire format of protobuf, read strictly: runtimes/protobuf.py says why. */

/** These bytes are not the message they should be. */
export class Broken extends Error {}

/** These bytes end too early, or are no text. */
export class Short extends Error {}

export function layout(lines) {
  const kinds = { int: 0, double: 1, bytes: 2, float: 5 };
  return new Map(
    lines.split(",").map((line) => {
      const [number, kind, name] = line.trim().split(" ");
      return [number * 8 + kinds[kind], name];
    }),
  );
}

/** The values of every field by name, in their order: numbers, or Uint8Arrays of bytes. */
export function fields(message, expected, budget) {
  const found = Object.create(null);
  for (const { name, value } of pieces(message, expected, budget)) (found[name] ??= []).push(value);
  return found;
}

/** Every field of a message: { name, value, from, to }, the last two where its bytes stand. */
export function* pieces(message, expected, budget) {
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
      return [value <= Number.MAX_SAFE_INTEGER ? Number(value) : value, at];
    }
  }
  throw new Broken("a number of more than 64 bits");
}

export const varintOf = (value) =>
  value < 128 ? [value] : [(value & 127) | 128, ...varintOf(Math.floor(value / 128))];

export function once(found) {
  for (const [name, values] of Object.entries(found)) {
    if (values.length > 1 && !name.endsWith("*")) throw new Broken(`${name} stands twice`);
  }
}

export function numbersOf(values, most) {
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

export function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Short();
  }
}

export const textOf = (found, name) => (found[name] ? decode(found[name][0]) : "");
