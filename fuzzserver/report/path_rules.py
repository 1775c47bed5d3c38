"""Which files a report tells of, and under which names."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from fuzzserver.report.model import FindingReport, Report, TargetReport
from fuzzserver.report.points import NOWHERE
from fuzzserver.stack import with_paths

__all__ = ["PathRules"]


@dataclass(frozen=True, slots=True)
class PathRules:
    """Names of files as they are in debug info, and what becomes of them."""

    strip_prefixes: tuple[str, ...] = ()
    """Folders that are left out at the beginning of names; the longest that fits counts."""
    include: tuple[str, ...] = ()
    """Patterns of names without the prefix; ``*`` is any text, ``/`` included. All if there are none."""
    exclude: tuple[str, ...] = ()

    def apply(self, report: Report) -> Report:
        """The report as the rules want it. Points in no file are kept while no file is left out."""
        if self == PathRules():
            return report
        return replace(
            report,
            targets=tuple(map(self._target, report.targets)),
            findings=tuple(map(self._finding, report.findings)),
        )

    def name(self, path: str) -> str:
        """The name that a file has in the report."""
        fitting = [
            prefix for each in self.strip_prefixes if path.startswith(prefix := each.rstrip("/") + "/")
        ]
        return path.removeprefix(max(fitting, key=len)) if fitting else path

    def keeps(self, name: str) -> bool:
        """Whether the report tells of the file with this name, which has no prefix any more."""
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return False
        return not any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def _target(self, target: TargetReport) -> TargetReport:
        points = target.points
        names = tuple(map(self.name, points.file_names))
        kept = {file for file, name in enumerate(names) if self.keeps(name)}
        if not (self.include or self.exclude):
            kept.add(NOWHERE)
        chosen = (index for index, file in enumerate(points.files) if file in kept)
        return replace(target, points=points.chosen(chosen, names))

    def _finding(self, each: FindingReport) -> FindingReport:
        finding = each.finding
        return replace(
            each,
            finding=replace(
                finding, place=self.name(finding.place), stack=with_paths(finding.stack, self.name)
            ),
        )
