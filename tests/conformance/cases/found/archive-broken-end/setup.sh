python3 - <<'P'
import io, tarfile
def entry(tar, name, kind=tarfile.REGTYPE, link="", mode=0o644, uid=0, text=None):
    e = tarfile.TarInfo(name); e.type = kind; e.linkname = link; e.mode = mode; e.uid = e.gid = uid
    data = (name if text is None else text).encode() if kind == tarfile.REGTYPE else b""
    e.size = len(data); tar.addfile(e, io.BytesIO(data))
import bz2, gzip, lzma
with tarfile.open("raw", "w") as tar:
    entry(tar, "a")
raw = open("raw", "rb").read()
def put(name, data): open(name, "wb").write(data)
put("zeros.tgz", gzip.compress(raw) + bytes(600))
put("text.tgz", gzip.compress(raw) + b"text")
put("cut.tgz", gzip.compress(raw)[:-5])
put("sum.tgz", gzip.compress(raw)[:-8] + b"12345678")
put("text.tbz", bz2.compress(raw) + b"text text")
put("text.txz", lzma.compress(raw) + b"text text")
put("text.tar", raw + b"text" * 300)
P
