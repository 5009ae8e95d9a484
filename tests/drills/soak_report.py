"""The figures of a soak, as text for people."""

from benchmarks.report import table
from tests.drills.soak import Report


def text_of(report: Report) -> str:
    """Return the figures as tables, and the verdict."""
    figures = [
        ["recordings", " + ".join(map(str, report.recordings.values()))],
        ["written", f"{report.written_bytes / 1e9:.2f} GB"],
        ["writers", f"{len(report.writers)}"],
        ["chunk puts begun", f"{report.chunk_puts:,}"],
        ["of which repeated", f"{report.repeated_puts:,} (at most {report.most_repeated:,})"],
        ["objects that came after their commit", f"{report.late_puts}"],
        ["without a manifest: file and record were gone", f"{report.unclosed}"],
        ["sent while the line was slow", f"{report.slow_bytes / 1e6:.1f} MB"],
        ["until all was stored, after the last fault", f"{report.settle_seconds:.1f} s"],
    ]
    levels = ("safe", "recording", "attention", "behind", "at_risk", "")
    pages = [
        [name, *(str(said.get(level, 0)) for level in levels), f"{report.compared[name]:,}"]
        for name, said in report.pages.items()
    ]
    growth = report.growth
    moments = [
        ("B, ready", growth.ready),
        (f"B, at {growth.reference.at_seconds:.0f} s", growth.reference),
        (f"B, at its end ({growth.end.at_seconds:.0f} s)", growth.end),
        ("A, its last process", growth.last_a),
    ]
    processes = [
        [name, f"{at.resident_mb:.0f}", f"{at.peak_mb:.0f}", str(at.threads), str(at.descriptors)]
        for name, at in moments
    ]
    verdict = "\n".join(["PROBLEMS:", *report.problems]) if report.problems else "Nothing was lost."
    return "\n\n".join(
        [
            "",
            table([["Faults", ""], *([name, str(count)] for name, count in sorted(report.faults.items()))]),
            table(
                [
                    ["Done to files", ""],
                    *([name, str(count)] for name, count in sorted(report.actions.items())),
                ]
            ),
            table([["Figures", ""], *figures]),
            table([["Pages", *levels[:-1], "no answer", "files compared"], *pages]),
            table([["Processes", "MB", "peak MB", "threads", "descriptors"], *processes]),
            verdict,
        ]
    )
