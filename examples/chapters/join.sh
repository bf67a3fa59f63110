# Joins the chapters of each book, in the order of their names.
set -e
cd in/data
files=
for book in *; do
    [ -d "$book" ] || continue
    cat "$book"/* >"../../out/data/$book.txt"
    files="$files${files:+, }\"$book.txt\""
done
cd ../..
printf '{"data": {"chapters": %s}, "files": [%s]}' "$(find in/data -type f | wc -l | tr -d ' ')" "$files" >out/events/1.json
