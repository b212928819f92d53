mkdir -p a t/d bin
touch 'a\b' ab abc 'bin\obj' binobj obj a/x t/word t/words 't/the word' t/d/word A B C D bin/x bin/.x
printf '%s\n' Dockerfile .dockerignore 'a\b' 't/*\bword' '**/d/\bwor\Bd' '*\bobj' '\x41' '\102' '[\x43]' 'bin/\b*' '\Aabc\z' > .dockerignore
