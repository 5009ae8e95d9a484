// Reads of an MP4's head what a browser must be told before it plays pieces of it: its codecs.

const hex = (byte) => byte.toString(16).padStart(2, "0");
const CONTAINERS = ["moov", "trak", "mdia", "minf", "stbl", "mvex"];
const SAMPLE_ENTRY_BYTES = { vide: 78, soun: 28 }; // ISO/IEC 14496-12: before the boxes inside

/** Go through the boxes of a range; `visit` gets type, begin and end of the content. False when one is cut off. */
function walk(bytes, from, to, visit) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  while (from < to) {
    if (from + 8 > to) return false;
    let length = view.getUint32(from);
    let head = 8;
    if (length === 1 && from + 16 <= to) {
      length = Number(view.getBigUint64(from + 8));
      head = 16;
    }
    const type = String.fromCharCode(...bytes.subarray(from + 4, from + 8));
    if (visit(type, from + head, from + length) === false) return true;
    if (length < head || from + length > to) return false;
    from += length;
  }
  return true;
}

/**
 * The movie of a file's head: its codecs, and whether it is fragmented.
 * Null when the file begins with its media, so that the movie comes at its end; undefined when the head
 * is too short to tell.
 */
export function findMovie(bytes) {
  let found;
  walk(bytes, 0, bytes.length, (type, from, to) => {
    if (type === "mdat") found = null;
    else if (type === "moov" && to <= bytes.length) found = readMovie(bytes, from, to);
    return found === undefined;
  });
  return found;
}

function readMovie(bytes, from, to) {
  const movie = { codecs: [], fragmented: false, video: false };
  let handler = "";
  const visit = (type, start, end) => {
    if (type === "mvex") movie.fragmented = true;
    if (type === "hdlr") handler = String.fromCharCode(...bytes.subarray(start + 8, start + 12));
    if (type === "stsd" && handler in SAMPLE_ENTRY_BYTES) {
      movie.video ||= handler === "vide";
      walk(bytes, start + 8, end, (entry, begin, finish) => {
        movie.codecs.push(codecOf(bytes, entry, begin + SAMPLE_ENTRY_BYTES[handler], finish));
      });
    }
    if (CONTAINERS.includes(type)) walk(bytes, start, end, visit);
  };
  walk(bytes, from, to, visit);
  return movie;
}

/** As RFC 6381 and its successors spell it. */
function codecOf(bytes, entry, from, to) {
  let codec = entry === "Opus" || entry === "fLaC" ? entry.toLowerCase() : entry;
  walk(bytes, from, to, (type, start, end) => {
    const inside = bytes.subarray(start, end);
    if (type === "avcC") codec = `${entry}.${hex(inside[1])}${hex(inside[2])}${hex(inside[3])}`;
    if (type === "hvcC") codec = `${entry}.${hevc(inside)}`;
    if (type === "av1C") codec = av1(inside);
    if (type === "vpcC") codec = `vp09.${[inside[4], inside[5], inside[6] >> 4].map((n) => `${n}`.padStart(2, "0")).join(".")}`;
    if (type === "esds") codec = mpeg4(inside);
  });
  return codec;
}

function hevc(config) {
  const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
  let flags = 0;
  for (let bit = 0; bit < 32; bit++) flags |= ((view.getUint32(2) >>> bit) & 1) << (31 - bit);
  const constraints = [...config.subarray(6, 12)];
  while (constraints.at(-1) === 0) constraints.pop();
  const space = ["", "A", "B", "C"][config[1] >> 6];
  const tier = config[1] & 0x20 ? "H" : "L";
  return [
    `${space}${config[1] & 31}`,
    (flags >>> 0).toString(16),
    `${tier}${config[12]}`,
    ...constraints.map((byte) => byte.toString(16)),
  ].join(".");
}

function av1(config) {
  const level = String(config[1] & 31).padStart(2, "0");
  const bits = config[2] & 0x40 ? (config[2] & 0x20 ? "12" : "10") : "08";
  return `av01.${config[1] >> 5}.${level}${config[2] & 0x80 ? "H" : "M"}.${bits}`;
}

/** The object type, and for AAC its kind, out of an elementary stream descriptor (ISO/IEC 14496-1). */
function mpeg4(descriptor) {
  let at = 4;
  let object = "";
  while (at < descriptor.length) {
    const tag = descriptor[at++];
    while (descriptor[at] & 0x80) at++; // a length of up to four bytes
    at++;
    if (tag === 3) at += 3;
    else if (tag === 4) {
      object = hex(descriptor[at]);
      at += 13;
    } else if (tag === 5) return `mp4a.${object}.${descriptor[at] >> 3}`;
    else break;
  }
  return `mp4a.${object}`;
}

export function typeOf(movie) {
  return `${movie.video ? "video" : "audio"}/mp4; codecs="${movie.codecs.join(", ")}"`;
}
