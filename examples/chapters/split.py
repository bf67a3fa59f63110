"""Splits a text at the lines that begin with `# `: one file and one event for each chapter."""

import json
import os
import pathlib
import sys

message = json.load(open("in/message.json", encoding="utf-8"))
if message["files"]:
    book = pathlib.Path("in/data", message["files"][0]["path"])
else:
    # The source `directory` gives a path that is relative to where the run was started.
    book = pathlib.Path(os.environ["LEAT_PROJECT"], message["data"]["path"])
try:
    text = book.read_text(encoding="utf-8")
except UnicodeDecodeError as error:
    print(f"{book.name} is no text: {error}")
    sys.exit(65)  # declared permanent: another attempt reads the same bytes

chapters = []
for line in text.splitlines(keepends=True):
    if line.startswith("# ") or not chapters:
        chapters.append("")
    chapters[-1] += line

for number, chapter in enumerate(chapters, 1):
    path = f"{book.stem}/{number:03}.txt"
    out = pathlib.Path("out/data", path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(chapter, encoding="utf-8")
    event = {"type": "chapter", "key": book.stem, "data": {"book": book.stem, "number": number}, "files": [path]}
    pathlib.Path(f"out/events/{number:06}.json").write_text(json.dumps(event), encoding="utf-8")
if not chapters:
    pathlib.Path("out/events/0.json").write_text(json.dumps({"type": "empty", "data": {"book": book.stem}}), encoding="utf-8")
pathlib.Path("out/insights.json").write_text(json.dumps({"chapters": len(chapters)}), encoding="utf-8")
