/** noise(seeds, size, draw): the bits of runtimes/noise.py. */

// Upper half of the table in units of 2^-20; runtimes/noise.py says where it comes from.
const UPPER = `
5257 15770 26285 36802 47323 57847 68376 78911 89452 100001 110558 121125 131702 142290 152890
163503 174131 184773 195431 206105 216798 227510 238241 248993 259768 270565 281386 292233 303106
314006 324935 335894 346884 357906 368961 380051 391177 402341 413543 424786 436070 447398 458770
470188 481654 493170 504736 516356 528030 539761 551551 563400 575313 587290 599334 611447 623631
635890 648225 660638 673134 685714 698382 711141 723993 736943 749993 763148 776411 789786 803277
816890 830627 844495 858499 872643 886933 901377 915978 930746 945686 960806 976114 991619 1007330
1023257 1039409 1055799 1072437 1089337 1106513 1123980 1141753 1159850 1178290 1197095 1216285
1235887 1255928 1276437 1297447 1318997 1341126 1363881 1387313 1411482 1436453 1462303 1489119
1517004 1546075 1576472 1608362 1641946 1677466 1715225 1755602 1799080 1846296 1898103 1955686
2020764 2095957 2185548 2297269 2447311 2679627 3219163`;
const HALF = UPPER.trim().split(/\s+/).map(Number);
const TABLE = Float64Array.from([...HALF.map((h) => -h).reverse(), ...HALF], (h) => h / 2 ** 20);
const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
];

/** Standard normals, Float32Array (seeds.length, size): row i from seeds[i] alone, the bits of Python. */
export function noise(seeds, size, draw) {
  const normals = new Float32Array(seeds.length * size);
  const half = (size + 1) >>> 1;
  seeds.forEach((seed, row) => {
    for (let pair = 0; pair < half; pair++) {
      const words = threefry(seed | 0, Math.floor(seed / 2 ** 32) | 0, pair, draw | 0);
      normals[row * size + pair] = normal(words[0]);
      if (pair + half < size) normals[row * size + half + pair] = normal(words[1]);
    }
  });
  return normals;
}

/** ((T[b0] + T[b1]) + (T[b2] + T[b3])) / 2: all exact, in float32 as in float64. */
const normal = (word) =>
  0.5 * (TABLE[word & 255] + TABLE[(word >>> 8) & 255] + TABLE[(word >>> 16) & 255] + TABLE[word >>> 24]);

/** Two int32 words of Threefry2x32 with 20 rounds (Salmon et al. 2011, section 4.1). */
export function threefry(key0, key1, counter0, counter1) {
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  let x = (counter0 + key0) | 0;
  let y = (counter1 + key1) | 0;
  for (let group = 0; group < 5; group++) {
    for (const rotation of ROTATIONS[group & 1]) {
      x = (x + y) | 0;
      y = ((y << rotation) | (y >>> (32 - rotation))) ^ x;
    }
    x = (x + keys[(group + 1) % 3]) | 0;
    y = (y + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x, y];
}
