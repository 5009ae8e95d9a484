// Reads of an MP4's head what a browser must be told before it plays pieces of it: its codecs.

const hex = (byte) => byte.toString(16).padStart(2, "0");
const WANTED = ["ftyp", "moov", "moof", "mdat"]; // what recorders append at the end is not for a stream
const CONTAINERS = ["moov", "trak", "mdia", "minf", "stbl", "mvex"];
const SAMPLE_ENTRY_BYTES = { vide: 78, soun: 28 }; // ISO/IEC 14496-12: before the boxes inside

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The box at a place: its type, where its content begins and where it ends; null when its head is cut off. */
function boxAt(bytes, at) {
  if (at + 8 > bytes.length) return null;
  let length = viewOf(bytes).getUint32(at);
  let head = 8;
  if (length === 1) {
    if (at + 16 > bytes.length) return null;
    length = Number(viewOf(bytes).getBigUint64(at + 8));
    head = 16;
  }
  if (length === 0) length = Infinity; // to the end of the file
  if (length < head) throw new Error("This recording is damaged here.");
  return { type: String.fromCharCode(...bytes.subarray(at + 4, at + 8)), from: at + head, to: at + length };
}

/** Go through the boxes that lie whole between two places; ends early when `visit` gives false. */
function walk(bytes, from, to, visit) {
  for (let box; from < to && (box = boxAt(bytes, from)); from = box.to) {
    if (visit(box.type, box.from, box.to) === false || box.to > to) return;
  }
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
    else if (type === "moov" && to <= bytes.length) found = { ...readMovie(bytes, from, to), ends: to };
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

/** Makes of a fragmented file what a browser takes piece by piece (W3C, "ISO BMFF Byte Stream Format"). */
export class Fragments {
  #held = new Uint8Array(); // a box whose rest has not come yet
  #heldAt = 0;
  #left = 0; // bytes that still come of a box which is handed on as it comes
  #passing = false;
  #movieCame = false;

  /** To begin in the middle: at a fragment, when the movie was played already. */
  static from(place) {
    const fragments = new Fragments();
    fragments.#heldAt = place;
    fragments.#movieCame = true;
    return fragments;
  }

  /** Take the next bytes of the file; gives those that can be played. */
  take(bytes) {
    const all = joined([this.#held, bytes]);
    const out = [];
    let at = 0;
    while (at < all.length) {
      if (this.#left === 0 && !this.#begin(all, at)) break;
      const now = Math.min(this.#left, all.length - at);
      if (this.#passing) out.push(all.subarray(at, at + now));
      this.#left -= now;
      at += now;
    }
    this.#held = all.slice(at);
    this.#heldAt += at;
    return joined(out);
  }

  #begin(bytes, at) {
    const box = boxAt(bytes, at);
    if (!box || (box.type === "moof" && box.to > bytes.length)) return false;
    if (box.type === "moof") rebase(bytes, box, this.#heldAt + at);
    this.#left = box.to - at;
    this.#passing = WANTED.includes(box.type) && !(box.type === "moov" && this.#movieCame);
    this.#movieCame ||= box.type === "moov";
    return true;
  }
}

/** Where the first fragment begins in bytes from the middle of a file; -1 when none does. */
export function findFragment(bytes) {
  const isName = (at, name) => [...name].every((letter, index) => bytes[at + index] === letter.charCodeAt(0));
  for (let at = 0; at + 16 <= bytes.length; at++) {
    if (bytes[at + 4] === 0x6d && isName(at + 4, "moof") && isName(at + 12, "mfhd")) return at;
  }
  return -1;
}

export function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/**
 * Let a fragment count from its own begin. ffmpeg without `default_base_moof` counts from the begin of the
 * file, which no browser takes. The eight bytes that this frees become a box of their own, so nothing moves.
 */
function rebase(bytes, moof, place) {
  const view = viewOf(bytes);
  walk(bytes, moof.from, moof.to, (type, from, to) => {
    if (type !== "traf") return;
    let shift = null;
    walk(bytes, from, to, (inner, start, end) => {
      if (inner === "tfhd" && view.getUint32(start) & 1) {
        shift = Number(view.getBigUint64(start + 8)) - place;
        view.setUint32(start - 8, view.getUint32(start - 8) - 8);
        view.setUint32(start, (view.getUint32(start) & ~1) | 0x020000);
        bytes.copyWithin(start + 8, start + 16, end);
        view.setUint32(end - 8, 8);
        bytes.set([0x66, 0x72, 0x65, 0x65], end - 4); // free
      }
      if (inner === "trun" && shift && view.getUint32(start) & 1) {
        view.setInt32(start + 8, view.getInt32(start + 8) + shift);
      }
    });
  });
}
