"""Known vulnerabilities of the installed packages; without a network this is left out, and said.

python tests/audit.py

pip-audit goes into an environment of its own, ``audit`` in this one.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

HOME = Path(sys.prefix) / "audit"
TOOL, FROZEN, FOUND = HOME / "bin" / "pip-audit", HOME / "frozen.txt", HOME / "found.json"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def main() -> int:
    if not TOOL.is_file():
        run(sys.executable, "-m", "venv", HOME)
        pip = (HOME / "bin" / "python", "-m", "pip", "--retries", 1, "--timeout", 20)
        installed = run(*pip, "install", "--quiet", "pip-audit")
        if installed.returncode:
            print(f"skipped: {installed.stderr.strip()}")
            return 0
    frozen = run(sys.executable, "-m", "pip", "freeze", "--exclude-editable").stdout
    FROZEN.write_text("\n".join(re.findall(r"^[\w.-]+==[\w.!]+", frozen, flags=re.MULTILINE)))
    FOUND.unlink(missing_ok=True)
    words = ("--no-deps", "--disable-pip", "-r", FROZEN, "-f", "json", "-o", FOUND)
    done = run(TOOL, *words, "--timeout", 20)
    if not FOUND.is_file():
        print(f"skipped: {done.stderr.strip()}")
        return 0
    packages = json.loads(FOUND.read_text())["dependencies"]
    known = [(one, v) for one in packages for v in one.get("vulns", ())]
    for one, v in known:
        fixed = ", ".join(v["fix_versions"]) or "no release"
        print(f"{one['name']} {one['version']}: {v['id']}, fixed in {fixed}")
    print(f"{len(packages)} packages, {len(known)} known vulnerabilities")
    return 1 if known else 0


if __name__ == "__main__":
    raise SystemExit(main())
