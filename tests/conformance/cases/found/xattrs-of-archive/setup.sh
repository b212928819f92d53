python3 - <<'P'
import io, tarfile
capability = bytes.fromhex('0100000200040000000000000000000000000000').decode('latin1')
with tarfile.open('x.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
    d = tarfile.TarInfo('d'); d.type = tarfile.DIRTYPE; d.mode = 0o750
    d.pax_headers = {'SCHILY.xattr.user.dir': 'd'}
    tar.addfile(d)
    f = tarfile.TarInfo('d/f'); f.mode = 0o640; f.size = 2
    f.pax_headers = {'SCHILY.xattr.user.note': 'hello'}
    tar.addfile(f, io.BytesIO(b'f\n'))
    t = tarfile.TarInfo('tool'); t.mode = 0o755; t.size = 2
    t.pax_headers = {'SCHILY.xattr.user.note': 'x', 'SCHILY.xattr.security.capability': capability}
    tar.addfile(t, io.BytesIO(b't\n'))
P
