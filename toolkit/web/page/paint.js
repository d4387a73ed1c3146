/** n samples of a model on a canvas: images as tiles, points in the plane as dots. */

let reach = 3.2; // of the plane that is shown: it grows with what there is to see

export const isPoints = ({ shape }) => shape.length === 1;

/** Draw x, float32 (n, ...spec.shape), as large and as sharp as the screen allows. */
export function paint(canvas, x, n, spec) {
  const ratio = Math.min(devicePixelRatio || 1, 3);
  const pixels = (size) => Math.max(Math.round((size || 84) * ratio), 1);
  const [across, down] = [pixels(canvas.clientWidth), pixels(canvas.clientHeight)];
  if (canvas.width !== across || canvas.height !== down) {
    Object.assign(canvas, { width: across, height: down });
  }
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, across, down);
  if (isPoints(spec)) dots(pen, across, x, n);
  else tiles(pen, across, down, x, n, spec);
}

/** n images in a square grid, each pixel a whole number of screen pixels where there is room. */
function tiles(pen, across, down, x, n, spec) {
  const [height, width] = spec.shape;
  const columns = Math.ceil(Math.sqrt(n));
  const gap = n > 1 ? Math.max(Math.round(across / 90), 1) : 0;
  const rest = gap * (columns + 1);
  const room = Math.min((across - rest) / columns / width, (down - rest) / columns / height);
  const scale = room >= 1 ? Math.floor(room) : room;
  const [wide, tall] = [width * scale + gap, height * scale + gap]; // from one tile to the next
  const left = Math.floor((across - columns * wide + gap) / 2);
  const top = Math.floor((down - columns * tall + gap) / 2);
  const tile = document.createElement("canvas");
  Object.assign(tile, { width, height });
  const brush = tile.getContext("2d");
  const image = brush.createImageData(width, height);
  pen.imageSmoothingEnabled = false;
  for (let k = 0; k < n; k++) {
    toBytes(image.data, x.subarray((k * x.length) / n, ((k + 1) * x.length) / n), spec);
    brush.putImageData(image, 0, 0);
    pen.drawImage(
      tile,
      left + (k % columns) * wide,
      top + Math.floor(k / columns) * tall,
      wide - gap,
      tall - gap,
    );
  }
}

/** One image, float32 (height, width, 1 or 3), as the browser's bytes: red, green, blue, opaque. */
function toBytes(bytes, x, { shape, value_range }) {
  const channels = shape[2];
  const [low, high] = value_range ?? [-1, 1];
  for (let pixel = 0; pixel < x.length / channels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = x[pixel * channels + (channel % channels)];
      bytes[4 * pixel + channel] = Math.round(((value - low) / (high - low)) * 255); // clamped by its type
    }
    bytes[4 * pixel + 3] = 255;
  }
}

/** n points in the plane, seen from far enough away, over a grid of ones. */
function dots(pen, side, x, n) {
  for (const value of x) reach = Math.max(reach, Math.min(Math.abs(value) * 1.06, 50));
  const at = (value) => (0.5 + value / reach / 2) * side;
  pen.strokeStyle = "#ffffff1c";
  pen.lineWidth = Math.max(side / 900, 1);
  pen.beginPath();
  for (let line = -Math.floor(reach); line <= reach; line++) {
    pen.moveTo(at(line), 0);
    pen.lineTo(at(line), side);
    pen.moveTo(0, at(line));
    pen.lineTo(side, at(line));
  }
  pen.stroke();
  pen.fillStyle = "#ffab76a8";
  for (let k = 0; k < n; k++) {
    pen.beginPath();
    pen.arc(at(x[2 * k]), side - at(x[2 * k + 1]), side / 190, 0, 2 * Math.PI);
    pen.fill();
  }
}
