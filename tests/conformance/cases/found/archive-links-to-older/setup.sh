python3 - <<'P'
import io, tarfile
def entry(tar, name, kind=tarfile.REGTYPE, link="", mode=0o644, uid=0, text=None):
    e = tarfile.TarInfo(name); e.type = kind; e.linkname = link; e.mode = mode; e.uid = e.gid = uid
    data = (name if text is None else text).encode() if kind == tarfile.REGTYPE else b""
    e.size = len(data); tar.addfile(e, io.BytesIO(data))
h = tarfile.LNKTYPE
with tarfile.open("a.tar", "w") as tar:
    entry(tar, "c", h, "a", mode=0o600, uid=3); entry(tar, "n/g", h, "l/f", mode=0o640, uid=5)
with tarfile.open("b.tar", "w") as tar:
    entry(tar, "e", h, "c", mode=0o644, uid=4)
P
