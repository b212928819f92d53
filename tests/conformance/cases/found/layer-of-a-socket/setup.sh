python3 - <<'END'
def entry(name, mode, ino):
    fields = [ino, mode, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(name) + 1, 0]
    data = b'070701' + b''.join(b'%08X' % f for f in fields) + name + b'\0'
    return data + b'\0' * (-len(data) % 4)
open('x.cpio', 'wb').write(entry(b'sock', 0o140755, 1) + entry(b'TRAILER!!!', 0, 2))
END
