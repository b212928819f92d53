python3 - <<'P'
import io, tarfile
with tarfile.open('x.tar', 'w') as tar:
    f = tarfile.TarInfo('a/b/f'); f.size = 2; tar.addfile(f, io.BytesIO(b'f\n'))
    d = tarfile.TarInfo('e'); d.type = tarfile.DIRTYPE; d.mode = 0o750; tar.addfile(d)
    f = tarfile.TarInfo('e/n/f'); f.size = 2; tar.addfile(f, io.BytesIO(b'f\n'))
P
