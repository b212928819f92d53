python3 - <<'P'
import io, tarfile
def entry(tar, name, kind=tarfile.REGTYPE, link="", mode=0o644, uid=0, text=None):
    e = tarfile.TarInfo(name); e.type = kind; e.linkname = link; e.mode = mode; e.uid = e.gid = uid
    data = (name if text is None else text).encode() if kind == tarfile.REGTYPE else b""
    e.size = len(data); tar.addfile(e, io.BytesIO(data))
d = tarfile.DIRTYPE
with tarfile.open("a.tar", "w") as tar:
    entry(tar, "./", d, mode=0o700, uid=3); entry(tar, "a/../b"); entry(tar, "../c"); entry(tar, ".", text="no")
with tarfile.open("b.tar", "w") as tar:
    entry(tar, "..", d, mode=0o700, uid=4); entry(tar, "q")
P
