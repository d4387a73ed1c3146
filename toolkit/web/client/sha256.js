/** SHA-256 in hex. */

/** SHA-256 in hex; by hand where a page is not served securely and the browser keeps its own to itself. */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  const words = subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : digestOf(bytes);
  return [...words].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** FIPS 180-4, section 6.2. */
export function digestOf(bytes) {
  const primes = [];
  for (let number = 2; primes.length < 64; number++)
    if (primes.every((prime) => number % prime)) primes.push(number);
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
    const block =
      start < whole ? bytes.subarray(start, start + 64) : end.subarray(start - whole, start - whole + 64);
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
    const t1 =
      (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + rounds[i] + w[i]) | 0;
    const t2 = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => {
    state[index] = (state[index] + word) | 0;
  });
}
