#!/usr/bin/env bash
# A YAML alias inside an example makes ogen refuse the document; the same alias inside a schema is read.
#
# Seen with ogen 1.25.0. The parser keeps the values of examples and defaults as raw JSON, and encodes each of them as a
# document of its own, in which the anchor is unknown. A guess would be that aliases are resolved before OpenAPI is read,
# since they are a matter of YAML, and that examples, which the generated code does not contain, cannot stop it.
# Output seen: "yaml: unknown anchor 'thing' referenced" for the example; code for the schema.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
go version
GOBIN=$dir go install github.com/ogen-go/ogen/cmd/ogen@v1.25.0 2> /dev/null
printf 'module probe\n\ngo 1.25\n' > go.mod

contract() {
  cat << END
openapi: 3.0.3
info: {title: probe, version: '1'}
paths:
  /first:
    get:
      operationId: first
      responses:
        '200':
          description: A thing.
          content:
            application/json:
              schema: {\$ref: '#/components/schemas/Thing'}
              examples:
                one: {value: $1}
                two: {value: {id: b, of: $2}}
components:
  schemas:
    Thing: {type: object, properties: {id: $3, of: $4}}
END
}
contract '&thing {id: a}' '*thing' '{type: string}' '{}' > example.yaml
contract '{id: a}' '{id: a}' '&text {type: string}' '*text' > schema.yaml
sed -i 's/of: {id: a}/of: a/' schema.yaml

generates() { ./ogen --target "$1" --package "$1" --clean "$1.yaml" > "$1.log" 2>&1; }
of_example=yes; generates example || of_example=no
of_schema=yes; generates schema || of_schema=no
grep -o 'yaml: unknown anchor.*' example.log || true
echo "code with an alias in an example: $of_example; in a schema: $of_schema"
[ $of_example = no ] && [ $of_schema = yes ] || { echo "ogen behaves differently now" >&2; exit 1; }
