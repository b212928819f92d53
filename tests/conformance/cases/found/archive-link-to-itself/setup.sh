python3 - <<'P'
import io, tarfile
def entry(tar, name, kind=tarfile.REGTYPE, link="", mode=0o644, uid=0, text=None):
    e = tarfile.TarInfo(name); e.type = kind; e.linkname = link; e.mode = mode; e.uid = e.gid = uid
    data = (name if text is None else text).encode() if kind == tarfile.REGTYPE else b""
    e.size = len(data); tar.addfile(e, io.BytesIO(data))
with tarfile.open("a.tar", "w") as tar:
    entry(tar, "a"); entry(tar, "a", tarfile.LNKTYPE, "a")
P
