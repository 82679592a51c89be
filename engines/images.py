"""Images, made on the spot: a busybox tree as folder, as tar, and as an OCI archive; and one that only pauses."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

import world

FOLDERS = ["bin", "dev", "etc", "home/user", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp", "www"]
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:a user:/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nextra:x:1234:user\n",
    "www/index.html": "a page of the container\n",
    "etc/not-executable": "text\n",
}


def tree(path):
    """The busybox tree. The owner of everything is the caller."""
    for folder in FOLDERS:
        os.makedirs(os.path.join(path, folder))
    busybox = next(found for found in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(found))
    shutil.copy(busybox, os.path.join(path, "bin/busybox"))
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            os.symlink("busybox", os.path.join(path, "bin", name))
    for name, text in FILES.items():
        world.write(os.path.join(path, name), text)
    os.chmod(os.path.join(path, "tmp"), 0o1777)
    os.chown(os.path.join(path, "home/user"), 1000, 1000)


def tar(folder, path):
    """The tree as a tar file."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".")


def archive(layer_tar, path, reference, command):
    """An OCI image archive with one layer."""
    plain = open(layer_tar, "rb").read()
    packed = gzip.compress(plain, compresslevel=1, mtime=0)
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
        "history": [{"created_by": "rt-engines"}],
    }
    blobs = {}

    def blob(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    layer = blob("layer.v1.tar+gzip", packed)
    described = blob("config.v1+json", json.dumps(config).encode())
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob("manifest.v1+json", json.dumps(
        {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": [layer]}).encode())
    manifest["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    with tarfile.open(path, "w") as out:
        for name, content in blobs.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))


def make(folder):
    """Everything, below one folder."""
    os.makedirs(folder)
    tree(f"{folder}/rootfs")
    tar(f"{folder}/rootfs", f"{folder}/rootfs.tar")
    archive(f"{folder}/rootfs.tar", f"{folder}/image.tar", "docker.io/library/rt-test:latest", ["sh"])
    archive(f"{folder}/rootfs.tar", f"{folder}/pause.tar", "docker.io/library/rt-pause:latest", ["sleep", "100000"])
