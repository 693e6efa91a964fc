"""`trainer inspect [key=value ...]`: what a dataset holds, without training."""

from __future__ import annotations

import argparse
import json

from trainer.builders.idle_keys import keys_in
from trainer.config import knobs
from trainer.errors import UserError
from trainer.system.progress_bars import starting
from trainer.text.values import count

HELP = """usage: trainer inspect [data=... data.KEY=...] [--json] [--fix-test [-o FILE]]

What a dataset holds, without training: images per class and split, damaged files, exact and near
copies within and between splits, images under two labels, images of nearly one colour. Findings
first, each with what to do: `trainer inspect data=image_folder data.root=photos`.

Keys: data and its options, and experiment. --json: one object, and nothing else on standard output.
--fix-test: write down which images are the test split now, in FILE, or in a file in data.root; with
data.test_files=FILE they stay it, whatever images are added.
Exit code 0: it could be inspected, whatever was found."""

# Options of data that change nothing here.
IDLE = {
    "data.mean": "inspect looks at pixels as they are",
    "data.std": "inspect looks at pixels as they are",
    "data.hflip": "inspect changes no image",
    "data.on_leak": "inspect names all copies and leaves out none",
    "data.on_bad_image": "inspect lists damaged files and goes on",
}


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    from trainer.config.compose import Composer, parse, plain

    own, words = own_options(argv)
    args = parse(words)
    if args != argparse.Namespace(**(vars(parse([])) | {"overrides": args.overrides})):
        raise UserError(
            "inspect takes key=value words, --json and --fix-test alone. See inspect --help."
        )
    composer = Composer(args)
    config = plain(composer.jobs(composer.master())[0])
    knobs.check(config)
    refuse_no_part(args.overrides)
    starting()

    from trainer.builders import datasets
    from trainer.inference import dataset_report
    from trainer.system.threads import set_num_threads

    set_num_threads(1, "torch")  # the search for copies has threads of its own

    if own.fix_test:
        path, number = datasets.fix_test(config["data"], own.output)
        print(f"{count(number, 'image is', 'images are')} listed in {path}")
        print(f"from now on: data.test_files={path}")
        return 0
    report = dataset_report.inspect(config["data"])
    if own.json:
        print(json.dumps(dataset_report.as_plain(report)))
    else:
        print(dataset_report.as_text(report))
    return 0


def own_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the command, and the other words. Raises UserError."""
    parser = argparse.ArgumentParser(prog="trainer inspect", add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fix-test", action="store_true")
    parser.add_argument("-o", "--output")
    own, words = parser.parse_known_args(argv)
    if own.output is not None and not own.fix_test:
        raise UserError(f"-o {own.output}: names the list that --fix-test writes. Add --fix-test.")
    if own.json and own.fix_test:
        raise UserError("--json --fix-test: one of them at a time.")
    return own, words


def refuse_no_part(words: list[str]) -> None:
    """Raises UserError that names the first key that changes nothing here."""
    for word in words:
        (key,) = keys_in([word])
        if key in IDLE:
            raise UserError(f"{word[:300]}: has no effect here: {IDLE[key]}. Leave the key out.")
        if key.partition(".")[0] not in ("data", "experiment"):
            raise UserError(
                f"{word[:300]}: plays no part in what a dataset holds: only data, its options and "
                "experiment do. Leave the key out."
            )
