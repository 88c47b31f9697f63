"""A connected machine in a folder: a lock with images, weights, packages and wheels, and the cache that it came from.

Everything is real but small: packages made by dpkg-deb, wheels that pip installs, keys of ssh-keygen.
"""

import contextlib
import ensurepip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from tests.made_images import image, sha256
from tests.made_weights import noise, random_safetensors

from onprem_llm.main import main
from onprem_llm.spec.lock import Lock
from onprem_llm.spec.weights_identity import identity_of
from onprem_llm.weights.manifest import Manifest

MB = 1_000_000
LAUNCH = "from onprem_llm.main import main; main()"
COMMIT = "c0ffee" * 6 + "c0de"
LICENCE = b"Permission is granted, to whom it may concern.\n"


def weights_files(large: int = MB) -> dict[str, bytes]:
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b"{}" * 500,
        "LICENSE": LICENCE,
        "empty.txt": b"",
        "sub/more.txt": b"{}" * 500,
        **{f"model-{number}.safetensors": random_safetensors(large, number) for number in (1, 2, 3)},
    }


def own_pip() -> Path:
    """Return the wheel of pip that this Python brings; Debian's has it outside of ensurepip."""
    folders = [Path(ensurepip.__file__).parent / "_bundled"]
    shared = sysconfig.get_config_var("WHEEL_PKG_DIR")
    folders += [Path(shared)] if shared else []
    found = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    assert found, f"no wheel of pip in {' or '.join(map(str, folders))}: apt-get install python3-venv"
    return found[0]


@dataclass
class Connected:
    """The machine: `root` holds model.yaml, the folder of weights, the cache and the lock."""

    root: Path
    weights: dict[str, bytes] = field(default_factory=weights_files)
    # Files of so many bytes, mostly holes, with marks that tell their parts from each other.
    large: dict[str, int] = field(default_factory=dict)
    # Where the weights were pulled from: a folder, or a hub, whose store is then in the cache.
    source: str = "path"
    images: int = 2
    packages: tuple[str, ...] = ("alpha", "beta")
    pythons: tuple[str, ...] = (f"3.{sys.version_info[1]}",)
    expires: str | None = None
    platform: str = "linux/amd64"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def blobs(self) -> Path:
        return self.cache / "blobs" / "sha256"

    @property
    def model(self) -> Path:
        if self.source != "path":
            return self.cache / "weights" / self.source / "owner--Tiny" / COMMIT / "Tiny"
        return self.root / "Tiny"

    @property
    def lock(self) -> Path:
        return self.root / "onprem-llm.lock"

    def make(self) -> "Connected":
        self.blobs.mkdir(parents=True, exist_ok=True)
        for path, data in self.weights.items():
            (self.model / path).parent.mkdir(parents=True, exist_ok=True)
            (self.model / path).write_bytes(data)
        large = [self._large(path, size) for path, size in self.large.items()]
        text = "api_version: 1\nname: tiny\nmodel: ./Tiny\nengine: {image: 'vllm/vllm-openai:v0.20.2'}\n"
        hub = self.source != "path"
        (self.root / "model.yaml").write_text(text)
        files = [{"path": p, "size": len(d), "sha256": sha256(d)} for p, d in self.weights.items()] + large
        files.sort(key=lambda file: str(file["path"]))
        _, name = identity_of("Tiny", {str(file["path"]): str(file["sha256"]) for file in files})
        if hub:
            listed = [{**file, "chunks": [file["sha256"]], "checked": "sha256"} for file in files]
            about = {
                "source": self.source,
                "id": "owner/Tiny",
                "commit": COMMIT,
                "commit_is": "commit",
                "files": listed,
            }
            manifest = Manifest.model_validate_json(json.dumps(about))
            manifest.write(self.model.parent / "manifest.json")
        value = {
            "schema_version": 1, "onprem_llm": "0.1.0", "platform": self.platform, "expires": self.expires,
            "site": {"registry_image": "registry.example/image-1:v1"},
            "deployments": [
                {"name": "tiny", "file": "model.yaml", "sha256": sha256(text.encode()), "text": text, "weights": name}
            ],
            "images": [self._image(number) for number in range(self.images)],
            "weights": [
                {
                    "source": self.source, "id": "owner/Tiny" if hub else "./Tiny", "name": name,
                    "revision": "main" if hub else "", "commit": COMMIT if hub else None,
                    "files": files,
                }
            ],
            "packages": [self._release()] if self.packages else [],
            "wheels": [self._wheels(python) for python in self.pythons],
        }  # fmt: skip
        self.lock.write_bytes(Lock.model_validate_json(json.dumps(value)).data)
        return self

    def keep(self, data: bytes) -> str:
        (self.blobs / sha256(data)).write_bytes(data)
        return sha256(data)

    def _large(self, path: str, size: int) -> dict[str, object]:
        step, digest = 64 * 1024 * 1024, hashlib.sha256()
        with (self.model / path).open("wb") as stream:
            for start in range(0, size, step):
                stream.seek(start)
                mark = b"%d" % start
                stream.write(mark)
                digest.update(mark + bytes(min(step, size - start) - len(mark)))
            stream.truncate(size)
        return {"path": path, "size": size, "sha256": digest.hexdigest()}

    def _image(self, number: int) -> dict[str, object]:
        shared, own = noise(300_000, 90), noise(200_000 + number, 91 + number)
        made = image(shared, own, config=b'{"n": %d}' % number)
        for blob in made.blobs:
            self.keep(blob)
        return {
            "ref": f"registry.example/image-{number}:v1", "digest": f"sha256:{self.keep(made.manifest)}",
            "id": f"sha256:{sha256(made.config)}", "size": sum(map(len, made.blobs)),
        }  # fmt: skip

    def _release(self) -> dict[str, object]:
        files = [self._deb(name) for name in self.packages]
        return {
            "os": "debian", "release": "13", "codename": "trixie", "architecture": "amd64",
            "kernels": ["6.12.1-amd64"], "files": files,
        }  # fmt: skip

    def _deb(self, name: str) -> dict[str, object]:
        tree = self.root / "debs" / name
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = (
            f"Package: {name}\nVersion: 1:1.0-1\nArchitecture: all\nMaintainer: A <a@example.com>\n"
            f"Description: the package {name}\n It does nothing.\n .\n It does it well.\n"
        )
        (tree / "DEBIAN" / "control").write_text(control)
        documents = tree / "usr" / "share" / "doc"
        documents.mkdir(parents=True, exist_ok=True)
        if name == "beta" and "alpha" in self.packages:
            # As many packages do whose source is one.
            if not (documents / name).is_symlink():
                (documents / name).symlink_to("alpha")
        else:
            (documents / name).mkdir(exist_ok=True)
            (documents / name / "copyright").write_text(f"The licence of {name}.\n")
        target = self.root / "debs" / f"{name}_1.0-1_all.deb"
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, target],
            check=True,
            capture_output=True,
            env=environment,
        )
        data = target.read_bytes()
        return {
            "name": name, "version": "1:1.0-1", "architecture": "all", "filename": f"{name}_1%3a1.0-1_all.deb",
            "size": len(data), "sha256": self.keep(data),
        }  # fmt: skip

    def _wheels(self, python: str) -> dict[str, object]:
        wheels = [self._wheel("onprem_llm", "0.1.0", "helper"), self._wheel("helper", "2.0", "")]
        # pip itself, so that no ensurepip is needed on site.
        bundled = own_pip()
        data = bundled.read_bytes()
        wheels.append({"filename": bundled.name, "size": len(data), "sha256": self.keep(data)})
        return {"python": python, "platform": self.platform, "files": wheels}

    def _wheel(self, name: str, version: str, needs: str) -> dict[str, object]:
        info = f"{name}-{version}.dist-info"
        texts = {
            f"{name}/__init__.py": f"def main():\n    print({name + ' ' + version!r})\n",
            f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            f"License-Expression: MIT\n" + (f"Requires-Dist: {needs}\n" if needs else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name.replace('_', '-')} = {name}:main\n",
            **({f"{info}/licenses/LICENSE": "MIT, as everybody knows.\n"} if needs else {}),
        }
        texts[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*texts, f"{info}/RECORD"])
        path = self.root / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for inner, text in texts.items():
                wheel.writestr(zipfile.ZipInfo(inner, (1980, 1, 1, 0, 0, 0)), text)
        data = path.read_bytes()
        return {"filename": path.name, "size": len(data), "sha256": self.keep(data)}


@dataclass
class Keys:
    """A key pair and the file of allowed signers."""

    folder: Path

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def allowed(self) -> Path:
        return self.folder / "allowed_signers"

    def make(self, options: str = 'namespaces="onprem-llm-bundle,onprem-llm-report"') -> "Keys":
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", str(self.key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        public = self.key.with_suffix(".pub").read_text()
        self.allowed.write_text(f"me@laptop {options} {public}")
        return self


@dataclass
class Bench:
    """A connected machine, keys, and `onprem-llm bundle …` of this checkout as a process."""

    root: Path
    here: Connected
    keys: Keys

    def start(self, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        environment = {**os.environ, "ONPREM_LLM_CACHE": str(self.here.cache), "COLUMNS": "200"}
        command = [*prefix, sys.executable, "-c", LAUNCH, "bundle", *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=self.root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: object, status: int = 0) -> str:
        """Run the command line in this process, as far as to its exit code; return all that it said."""
        said, handlers = io.StringIO(), {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
        with (
            mock.patch.dict(os.environ, {"ONPREM_LLM_CACHE": str(self.here.cache)}),
            mock.patch.object(sys, "argv", ["onprem-llm", "bundle", *map(str, arguments)]),
            contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.chdir(self.root),
        ):  # fmt: skip
            try:
                main()
                found = 0
            except SystemExit as ended:
                found = int(ended.code or 0)
            finally:
                for one, handler in handlers.items():
                    signal.signal(one, handler)
        assert found == status, (arguments, found, said.getvalue())
        return said.getvalue()

    def create(self, out: Path, *more: object, status: int = 0) -> str:
        return self.run(
            "create", "--lock", self.here.lock, "-o", out, "--sign-key", self.keys.key, *more, status=status
        )

    def verify(self, *folders: Path, status: int = 0, more: tuple[object, ...] = ()) -> str:
        return self.run("verify", *folders, "--allowed-signers", self.keys.allowed, *more, status=status)

    def load(self, *folders: Path, to: Path, status: int = 0) -> str:
        return self.run("load", *folders, "--to", to, "--allowed-signers", self.keys.allowed, status=status)


def tree(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def flip(path: Path, at: int | None = None) -> None:
    """Change one bit of a file, of this name only: others that share its bytes keep theirs."""
    data = bytearray(path.read_bytes())
    place = len(data) // 2 if at is None else at
    data[place] ^= 1
    path.unlink()
    path.write_bytes(data)
