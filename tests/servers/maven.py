"""Programs for the Java virtual machine, taken from Maven Central by Maven itself, once, into the cache folder."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.support import ServerUnavailableError, cache_folder, locked, run, say

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headrace</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = """
    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"""

# A test's server has a second to live: it starts faster if it is compiled once, and collects its garbage in one thread.
SPARING = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


def java() -> str:
    """The program `java`, 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if found is None:
        raise ServerUnavailableError("Kafka needs Java 17 or newer: sudo apt-get install openjdk-17-jre-headless maven")
    return found


def jars(name: str, artifacts: Sequence[str], instead: str) -> Path:
    """The folder that holds the artifacts (``group:name:version``) and all they need; ``instead``: another way to get it."""
    digest = hashlib.sha256(" ".join(artifacts).encode()).hexdigest()[:8]
    folder = cache_folder(f"{name}-{digest}")
    with locked(folder / ".lock"):
        if not (folder / "complete").exists():
            dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
            (folder / "pom.xml").write_text(_POM.format(name=name, dependencies=dependencies))
            _maven(
                name,
                folder,
                instead,
                "dependency:copy-dependencies",
                "-DoutputDirectory=jars",
                "-DincludeScope=runtime",
            )
            (folder / "complete").touch()
    return folder / "jars"


def unpacked(name: str, artifact: str, instead: str) -> Path:
    """The folder that an archive (``group:name:version:tar.gz:classifier``) is unpacked in."""
    digest = hashlib.sha256(artifact.encode()).hexdigest()[:8]
    folder = cache_folder(f"{name}-{digest}")
    with locked(folder / ".lock"):
        if not (folder / "complete").exists():
            (folder / "pom.xml").write_text(_POM.format(name=name, dependencies=""))
            _maven(name, folder, instead, "dependency:copy", f"-Dartifact={artifact}", "-DoutputDirectory=.")
            archive = next(folder.glob("*.tar.gz"))
            with tarfile.open(archive) as opened:
                # Python before 3.11.4 has no filters.
                opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
                opened.extractall(folder / "root")
            archive.unlink()
            (folder / "complete").touch()
    return folder / "root"


def _maven(name: str, folder: Path, instead: str, *words: str) -> None:
    java()
    if not shutil.which("mvn"):
        raise ServerUnavailableError(f"{name} is taken from Maven Central: sudo apt-get install maven; or {instead}")
    say(f"\ndownloading {name} from Maven Central, once, into {folder}")
    try:
        run(["mvn", "-B", "-q", "-f", folder / "pom.xml", *words])
    except RuntimeError as error:
        raise ServerUnavailableError(f"{name} can't be downloaded from Maven Central; {instead}: {error}") from error
