"""The status page in a real Chromium, in front of a real daemon: what it says, and that it never lies."""

import itertools
import os
import signal
import time

import pytest
from selenium.webdriver import Keys

from tests.support import chromium as fixtures
from tests.support.chromium import IS, SCREENS, Chromium, Light, MakeSite, opened, write
from tests.support.daemon_process import DaemonProcess, prelude_of
from tests.support.mp4_boxes import box, mdat
from tests.support.servers import RcloneS3, free_port

pytestmark = pytest.mark.browser

ROWS = "return [...document.querySelectorAll('.row:not([hidden])')].map(row => row.dataset.id)"

HOSTILE = (
    "<script>window.injected=1</script>.mp4",
    "<img src=x onerror=alert(1)>.mp4",
    "\"'><b>bold</b>&lt;i&gt;.mp4",
    "two\nlines\tand\rmore.mp4",
    "turned\u202egpj\u2066.mp4",
    "right-to-left مقطع وידאו.mp4",
    "__proto__.mp4",
    "x" * 251 + ".mp4",
    os.fsdecode(b"no text \xff\xfe.mp4"),
)

# A key of more than 1,024 bytes: S3 takes no such object, whatever one waits.
TOO_DEEP = "/".join(["a folder with a long name " + "n" * 70] * 12) + "/clip.mp4"

FTYP = box(b"ftyp", b"isom", bytes(4))

# Fixtures of this file, too: one browser and one set of folders for all its tests.
browser, chromium, make_site = fixtures.browser, fixtures.chromium, fixtures.make_site


@pytest.fixture(scope="module")
def safe(make_site: MakeSite) -> DaemonProcess:
    """A daemon whose recordings, one of them with a chunk, are all complete."""
    site = make_site()
    write(site, "cam1/front.mp4", 6_000_000)
    write(site, "cam2/yard.mp4")
    daemon = site.daemon()
    site.wait_until_stored("cam1/front.mp4", "cam2/yard.mp4")
    return daemon


@pytest.fixture(scope="module")
def hostile(make_site: MakeSite) -> DaemonProcess:
    """A daemon with recordings whose names are meant to break pages, and one that cannot be stored."""
    site = make_site(STREAM_TIMEOUT_SECONDS="3600")
    for name in HOSTILE:
        write(site, name)
    write(site, TOO_DEEP, 6_000_000)  # a chunk and more: only what is stored can be refused
    return site.daemon()


# ---------------------------------------------------------------------- what it says


def test_all_is_well(chromium: Chromium, safe: DaemonProcess) -> None:
    opened(chromium, safe, "safe")
    assert chromium.text("#verdict").startswith("Yes.")
    assert chromium.driver.title.startswith("✓ Yes.")
    assert chromium.run("return document.getElementById('icon').href").endswith("/icon-safe.svg")
    assert chromium.text("#oldest") == "none"
    assert chromium.text("#group-ended .count") == "2"
    assert chromium.run("return document.getElementById('trouble').hidden")


def test_an_empty_folder_is_no_yes_and_names_folder_patterns_and_bucket(
    chromium: Chromium, make_site: MakeSite
) -> None:
    site = make_site()
    (site.folder / "camera.mkv").write_bytes(b"x")
    opened(chromium, site.daemon(), "empty")
    assert chromium.text("#verdict") == "Nothing recorded yet"
    assert chromium.driver.title.startswith("○ Nothing recorded yet")
    watching = f"Watching {site.folder} for *.mp4 → s3://{site.bucket}/"
    assert chromium.text("#watching") == f"{watching} (each put confirmed by MD5)"
    assert chromium.text("#detail").startswith(watching)
    assert "such as camera.mkv" in chromium.text("#setup-note")
    assert chromium.run("return document.getElementById('off-site').hidden")


def test_a_camera_that_went_silent_is_named(chromium: Chromium, make_site: MakeSite) -> None:
    site = make_site()
    for number in range(6):
        write(site, f"cam07/{number}.mp4")
        at = time.time() - 5 * 3600 - 900 * number
        os.utime(site.folder / f"cam07/{number}.mp4", (at, at))
    # Nobody can set the time of an inode, so these look like copies.
    daemon = site.daemon(prelude=prelude_of({"folder.silence.COPIED_SECONDS": 1e18}))
    opened(chromium, daemon, "attention")
    assert chromium.text("#verdict") == "Yes, but cam07 has been silent for 5 h"
    assert chromium.text("#silent") == "cam07 has been silent for 5 h; before, never for more than 15 min"
    assert daemon.metric("video_uploader_silent_folders") == 1


def test_what_no_player_opens_and_what_was_cut_short_is_safe_in_no_green(
    chromium: Chromium, make_site: MakeSite
) -> None:
    site = make_site(STREAM_TIMEOUT_SECONDS="3600")
    path = site.folder / "killed.mp4"
    path.write_bytes(FTYP + mdat(1000))  # as a recorder leaves it that was killed
    os.utime(path, (time.time() - 7200,) * 2)  # so it has ended
    daemon = site.daemon()
    opened(chromium, daemon, "attention")
    assert chromium.text("#verdict") == "Yes, but one recording of the last day cannot be played"
    assert chromium.text(".row .state") == "Safe in S3"
    assert chromium.run("return document.querySelector('.row').dataset.kind") == "attention"
    assert chromium.text(".row .error") == (
        "Safe in S3, but no player can open it: no moov box: the recorder did not close the file"
    )
    assert chromium.text(".row .hint").startswith("What to do: Repair a copy of it")
    lengths = "import('./words.js').then(({ length }) => [length(arguments[0]), length(arguments[1])])"
    told = [{"duration_seconds": 248.2, "duration_source": source} for source in ("wall_clock", "media")]
    assert chromium.run(f"return {lengths}", *told) == ["~0:04:08", "0:04:08"]
    assert chromium.run("return document.querySelector('.row .play').hidden")
    write(site, "cut.mp4", 6_000_000)
    cut = "document.querySelector('.row[data-id=\"cut.mp4@1\"]')"
    chromium.wait(f"return {cut}?.textContent.includes('5.2 MB of 6.0 MB in S3')")
    write(site, "other.mp4")
    (site.folder / "other.mp4").replace(site.folder / "cut.mp4")
    chromium.wait("return document.getElementById('verdict').textContent.startsWith('Not quite: ')")
    assert chromium.run(f"return {cut}.querySelector('.state').innerText") == "Incomplete"
    assert "5.2 MB in S3, at least 757.1 kB lost" in chromium.run(f"return {cut}.textContent")
    assert "another file took the source's place" in chromium.run(f"return {cut}.textContent")
    text = f"{cut}.querySelector('.amount-text')"
    chromium.resize(1280, 800, "light")
    right = "getBoundingClientRect().right"
    overlap = chromium.run(f"return {text}.{right} > {text}.parentNode.{right}")
    assert not overlap, "what is lost runs into the facts beside it"


def test_a_recording_that_failed_comes_first_with_its_reason(
    chromium: Chromium, hostile: DaemonProcess
) -> None:
    opened(chromium, hostile, "at_risk")
    chromium.wait("return document.getElementById('failed-count').textContent === '1'")
    assert chromium.driver.title.startswith("⚠ No.")
    first = chromium.run("return document.querySelector('.row').innerText")
    assert "Failed" in first
    assert "1024" in chromium.text(".row .error").replace(",", "")


def test_an_outage_of_s3_is_said_with_what_to_do_and_so_is_its_end(
    chromium: Chromium, make_site: MakeSite, private_rclone: RcloneS3
) -> None:
    site = make_site(s3=private_rclone)
    write(site, "front.mp4")
    daemon = site.daemon()
    site.wait_until_stored("front.mp4")
    opened(chromium, daemon, "safe")
    private_rclone.stop()
    write(site, "yard.mp4", 6_000_000)  # its first put fails at once; the prober would take some seconds
    chromium.wait(IS, "at_risk")
    assert chromium.text("#problems h3").startswith("S3 has been failing for ")
    said = chromium.text("#spoken")
    assert said.startswith("No. S3 has been failing for ")
    shown = "document.getElementById('verdict').textContent"
    chromium.wait(f"return {shown} !== arguments[0]", said)
    assert chromium.text("#spoken") == said, "it would be read out again every two seconds"
    assert chromium.text("#problems .hint").startswith("What to do: ")
    assert "S3: failing" in chromium.text("#services")
    assert "still going on" in chromium.text("#outages")
    private_rclone.start()
    chromium.wait(IS, "safe", seconds=60)
    assert chromium.run("return document.getElementById('trouble').hidden")
    assert " long: " in chromium.text("#outages")


def test_names_that_are_meant_to_break_pages_are_shown_and_do_nothing(
    chromium: Chromium, hostile: DaemonProcess
) -> None:
    opened(chromium, hostile, "at_risk")
    chromium.wait(f"return document.querySelectorAll('.row').length === {len(HOSTILE) + 1}")
    names = chromium.run("return [...document.querySelectorAll('.row bdi')].map(name => name.textContent)")
    for name in HOSTILE[:3] + HOSTILE[5:8]:
        assert name in names
    assert "two⟨000a⟩lines⟨0009⟩and⟨000d⟩more.mp4" in names
    assert "turned⟨202e⟩gpj⟨2066⟩.mp4" in names
    assert chromium.run("return document.querySelectorAll('main :is(script, img, b, i)').length") == 0
    assert chromium.run("return window.injected") is None


def test_200_recordings_can_be_searched_and_keep_the_keyboard_where_it_is(
    chromium: Chromium, make_site: MakeSite
) -> None:
    site = make_site(STREAM_TIMEOUT_SECONDS="3600")
    for number in range(200):
        write(site, f"site-{number % 5}/camera-{number:03}.mp4")
    opened(chromium, site.daemon(), "recording")
    chromium.wait("return document.querySelectorAll('.row').length === 200")
    chromium.run("document.getElementById('find').focus()")
    chromium.press("CAMERA-12")
    assert len(chromium.run(ROWS)) == 10
    assert chromium.text("#group-under-way .count") == "10 of 200"
    chromium.run("window.kept = document.querySelector('.row:not([hidden])')")
    write(site, "site-0/a-new-camera-120.mp4")  # comes before all others
    chromium.wait(f"{ROWS}.length === 11")
    assert chromium.focused() == "find"
    assert chromium.run("return kept.isConnected && kept.previousElementSibling !== null")
    assert chromium.run("return document.getElementById('find').value") == "CAMERA-12"


def test_a_list_that_is_not_all_says_so(chromium: Chromium, make_site: MakeSite) -> None:
    site = make_site(STREAM_TIMEOUT_SECONDS="1")
    for number in range(52):
        write(site, f"{number}.mp4")
    opened(chromium, site.daemon(), "safe")
    told = "document.getElementById('left-off').textContent"
    chromium.wait(f"return {told}.startsWith('2 more recordings are not listed: ')")
    assert len(chromium.run(ROWS)) == 50
    chromium.run("document.getElementById('find').focus()")
    chromium.press("zzz")
    assert chromium.text("#none") == "None of those listed has such a name."


# ---------------------------------------------------------------------- no old answer looks like a new one


def test_a_daemon_that_hangs_and_then_is_killed_is_missed_and_welcomed_back(
    chromium: Chromium, make_site: MakeSite
) -> None:
    site = make_site(HTTP_PORT=str(free_port()))
    write(site, "front.mp4")
    daemon = site.daemon()
    site.wait_until_stored("front.mp4")
    opened(chromium, daemon, "safe")
    daemon.send(signal.SIGSTOP)
    chromium.wait(IS, "unknown")
    assert chromium.text("#verdict") == "No answer from the uploader"
    assert chromium.driver.title.startswith("? No answer")
    assert "Nothing answered in time" in chromium.text("#detail")
    before = int(chromium.text("#age-figure").removesuffix(" s"))
    assert before >= 5
    daemon.kill()
    chromium.wait("return document.getElementById('detail').textContent.startsWith('Nothing answers')")
    assert int(chromium.text("#age-figure").removesuffix(" s")) > before
    site.daemon()
    chromium.wait(IS, "safe")
    assert chromium.run("return document.getElementById('age').hidden")


def test_a_password_in_the_address_is_enough_and_one_that_became_wrong_is_said(
    chromium: Chromium, make_site: MakeSite
) -> None:
    site = make_site(STATUS_PASSWORD="first-password", HTTP_PORT=str(free_port()))
    write(site, "front.mp4")
    daemon = site.daemon()
    site.wait_until_stored("front.mp4")
    chromium.open(daemon.wait_for("serving")["url"].replace("//", "//me:first-password@"))
    chromium.wait(IS, "safe")
    daemon.kill()
    site.daemon(STATUS_PASSWORD="other-password")
    chromium.wait("return document.getElementById('detail').textContent.includes('give the password')")
    assert chromium.run(IS, "unknown")
    asked = "performance.getEntriesByType('resource').filter(one => one.name.endsWith('/api/status')).length"
    before = chromium.run(f"return {asked}")
    age = "parseInt(document.getElementById('age-figure').textContent)"
    chromium.wait(f"return {age} > arguments[0] + 2", chromium.run(f"return {age}"))
    assert chromium.run(f"return {asked}") == before, "asking on would lock everybody at this address out"


WATCH_LEVELS = """
window.levels = [];
const watcher = new MutationObserver(() => window.levels.push(document.body.dataset.level));
watcher.observe(document.body, { attributeFilter: ['data-level'] });
"""


def test_a_tab_that_slept_says_so_before_it_asks_again(chromium: Chromium, safe: DaemonProcess) -> None:
    opened(chromium, safe, "safe")
    chromium.run(WATCH_LEVELS)
    chromium.cdp("Page.setWebLifecycleState", state="frozen")
    chromium.cdp("Page.setWebLifecycleState", state="active")
    chromium.wait("return window.levels.length === 2")
    assert chromium.run("return window.levels") == ["unknown", "safe"]


def test_a_machine_that_slept_shows_nothing_old_when_it_wakes(
    chromium: Chromium, safe: DaemonProcess
) -> None:
    opened(chromium, safe, "safe")
    chromium.run(WATCH_LEVELS)
    # A steady clock may stand still while a machine sleeps; that of the wall does not.
    chromium.run("const now = Date.now; Date.now = () => now() + 60000")
    chromium.run("document.dispatchEvent(new Event('visibilitychange'))")
    chromium.wait("return window.levels.length === 2")
    assert chromium.run("return window.levels") == ["unknown", "safe"]


def test_a_page_without_its_script_says_that_it_heard_nothing(
    chromium: Chromium, safe: DaemonProcess
) -> None:
    opened(chromium, safe, "safe")
    shown = "return getComputedStyle(document.getElementById('silence')).visibility"
    assert chromium.run(shown) == "hidden"
    chromium.run("document.getAnimations().forEach(one => one.finish())")  # as if its 20 s were over
    chromium.wait(f"{shown} === 'visible'")
    chromium.wait(f"{shown} === 'hidden'", why="the next answer did not take it back")


# ---------------------------------------------------------------------- for all people


@pytest.mark.parametrize("light", ["light", "dark"])
def test_nothing_is_wider_than_the_screen_and_the_answer_needs_no_scrolling(
    chromium: Chromium, hostile: DaemonProcess, light: Light
) -> None:
    opened(chromium, hostile, "at_risk")
    for width, height in (*SCREENS.values(), (360, 640), (768, 1024)):
        chromium.resize(width, height, light)
        wide = chromium.run(
            "return [...document.querySelectorAll('body *')]"
            ".filter(node => !node.closest('.skip') && node.getBoundingClientRect().right > innerWidth + 1)"
            ".map(node => node.outerHTML.slice(0, 200))"
        )
        assert not wide, (width, light)
        assert chromium.run("return document.documentElement.scrollWidth") <= width
        assert (
            chromium.run("return document.querySelector('.answer').getBoundingClientRect().bottom") < height
        )


# WCAG 2.1, 1.4.3: the contrast of each text with the first opaque background behind it.
CONTRASTS = """
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
  .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if ((parts(colour)[3] ?? 1) === 1) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const poor = [];
for (const node of document.querySelectorAll('body :not(script, style)')) {
  if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
  if (!node.checkVisibility({ visibilityProperty: true })) continue;
  const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  if (ratio < 4.5) poor.push([node.id || node.className, node.textContent.slice(0, 40), ratio]);
}
return poor;
"""


@pytest.mark.parametrize("light", ["light", "dark"])
def test_every_text_can_be_told_from_what_is_behind_it(
    chromium: Chromium, hostile: DaemonProcess, light: Light
) -> None:
    opened(chromium, hostile, "at_risk", light=light)
    for level in ("at_risk", "behind", "attention", "empty", "recording", "safe", "unknown"):
        chromium.run("document.body.dataset.level = arguments[0]", level)
        assert chromium.run(CONTRASTS) == []
    for kind in ("safe", "recording", "attention", "behind"):
        chromium.run(
            "document.querySelectorAll('[data-kind]').forEach(row => row.dataset.kind = arguments[0])", kind
        )
        assert chromium.run(CONTRASTS) == []


def test_everything_has_a_name_for_a_screen_reader(chromium: Chromium, hostile: DaemonProcess) -> None:
    opened(chromium, hostile, "at_risk")
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in chromium.cdp("Accessibility.getFullAXTree")["nodes"]
        if not node["ignored"]
    ]
    named = ("button", "link", "searchbox", "progressbar", "progressIndicator", "heading", "region")
    assert not [role for role, name in nodes if role in named and not name]
    roles = [role for role, _ in nodes]
    assert roles.count("progressIndicator") + roles.count("progressbar") == len(HOSTILE) + 1
    assert {"banner", "main", "contentinfo", "status", "searchbox"} <= set(roles)
    headings = chromium.run(
        "return [...document.querySelectorAll(':is(h1, h2, h3, h4)')].filter(node => node.checkVisibility())"
        ".map(node => Number(node.tagName[1]))"
    )
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))


def test_only_the_answer_is_read_out_and_only_when_it_changes(
    chromium: Chromium, safe: DaemonProcess
) -> None:
    opened(chromium, safe, "safe")
    live = "[aria-live], [role=status], [role=alert], output"
    assert chromium.run(f"return [...document.querySelectorAll('{live}')].map(node => node.id)") == ["spoken"]
    chromium.run(
        "window.said = 0; window.beats = 0;"
        "new MutationObserver(() => window.said++).observe(document.getElementById('spoken'),"
        " {childList: true, characterData: true, subtree: true});"
        "new MutationObserver(() => window.beats++).observe(document.body, {attributeFilter: ['data-beat']})"
    )
    chromium.wait("return window.beats >= 2")
    assert chromium.run("return window.said") == 0


def test_the_keyboard_reaches_everything_and_gets_back(chromium: Chromium, safe: DaemonProcess) -> None:
    opened(chromium, safe, "safe")
    chromium.wait("return document.querySelectorAll('.play').length === 2")
    order = []
    for _ in range(4):
        chromium.press(Keys.TAB)
        order.append(chromium.focused())
        assert chromium.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order[:2] == ["Skip to the recordings", "find"]
    assert sorted(order[2:]) == ["Play cam1/front.mp4", "Play cam2/yard.mp4"]
    for leave in (Keys.ESCAPE, Keys.ENTER):
        chromium.press(Keys.ENTER)
        chromium.wait("return document.getElementById('player').open")
        assert chromium.focused() == "player-close"
        chromium.press(leave)
        chromium.wait("return !document.getElementById('player').open")
        assert chromium.focused() == order[3]
