// How sizes, times and states are told to people, and how text from outside becomes harmless text.

const SIZES = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];

// Controls, and what turns the direction of writing around. Joiners stay: names in many scripts need them.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** Text as it is, but each invisible character by its number, so that no name looks like another. */
export function visible(text) {
  return String(text ?? "").replace(INVISIBLE, (one) => `⟨${one.charCodeAt(0).toString(16).padStart(4, "0")}⟩`);
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  for (const [unit, name] of SIZES) {
    if (bytes >= unit * 0.9995) return `${(bytes / unit).toFixed(1)} ${name}`;
  }
  return `${bytes} bytes`;
}

export function rate(bytesPerSecond) {
  return bytesPerSecond ? `${size(Math.round(bytesPerSecond))}/s` : "–";
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 2 * 3600) return `${Math.round(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

/** How long a finished recording is; "~" when its file does not tell and the clock on the wall had to. */
export function length(stream) {
  if (stream.duration_seconds === null || stream.duration_seconds === undefined) return "–";
  const whole = Math.round(stream.duration_seconds);
  const two = (number) => String(number).padStart(2, "0");
  const spelled = `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return stream.duration_source === "wall_clock" ? `~${spelled}` : spelled;
}

/** Seconds from one ISO time to another; null when one of them is missing or none. */
export function secondsBetween(from, to) {
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  return Number.isFinite(seconds) ? seconds : null;
}

export function ago(when, now) {
  const seconds = when ? secondsBetween(when, now) : null;
  return seconds === null ? "–" : `${duration(seconds)} ago`;
}

/** A time of the clock of whoever reads this, with the day when it is not today. */
export function clock(when) {
  const date = new Date(when);
  if (Number.isNaN(date.getTime())) return "–";
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  if (date.toDateString() !== new Date().toDateString()) Object.assign(options, { day: "numeric", month: "short" });
  return date.toLocaleString("en-GB", options);
}

export function counted(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

const STATES = {
  active: ["Uploading", "recording"],
  finalizing: ["Verifying", "recording"],
  complete: ["Safe in S3", "safe"],
  incomplete: ["Incomplete", "attention"],
  failed: ["Failed", "at_risk"],
};

/** The word for a recording's state, and the mark that goes with it. */
export function state(stream) {
  if (stream.cancelled) return ["Cancelled", "behind"];
  if (stream.waiting) return ["Waiting", "behind"];
  if (stream.state === "complete" && stream.playable === false) return ["Safe in S3", "attention"];
  return STATES[stream.state] ?? [visible(stream.state), "unknown"];
}

// Before what the uploader says: the page asks a question, and this answers it.
const ANSWERS = { safe: "Yes.", recording: "So far, yes.", behind: "Not all of them yet.", at_risk: "No." };

/** The answer in one sentence or two. */
export function verdict(level, title) {
  return `${ANSWERS[level] ? `${ANSWERS[level]} ` : ""}${visible(title)}`;
}
