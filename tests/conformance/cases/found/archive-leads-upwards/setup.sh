python3 - <<'END'
import io, tarfile
archive = tarfile.open("a.tar", "w")


def add(name, data="", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = kind, link, len(data), 1600000000
    archive.addfile(info, io.BytesIO(data.encode()))


add("../a", "a\n")
add("../../x/../b", "b\n")
add("x/../../c", "c\n")
add("../e", kind=tarfile.LNKTYPE, link="../a")
archive.close()
END
