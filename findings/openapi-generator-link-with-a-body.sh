#!/usr/bin/env bash
# A link with a request body, as OpenAPI 3.0 defines it, makes openapi-generator generate nothing in any language.
#
# Seen with openapi-generator 7.26.0. OpenAPI 3.0: the `requestBody` of a link is "any value or an expression". An object
# such as {id: '$response.body#/id'} is the only way to name the parts of a JSON body. The parser accepts a string alone,
# and counts the object as an error of the document. A guess would be that a link, which no client generator uses, is
# skipped at worst. The same JSON in a string is accepted.
# Output seen: "links.next.requestBody is not of type `string`" and no client; with the string, a client.
set -euo pipefail
command -v java > /dev/null || { echo "java is missing" >&2; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check openapi-generator-cli==7.26.0

contract() {
  cat << END
openapi: 3.0.3
info: {title: probe, version: '1'}
paths:
  /first:
    post:
      operationId: first
      responses:
        '200':
          description: A thing.
          content: {application/json: {schema: {\$ref: '#/components/schemas/Thing'}}}
          links:
            next: {operationId: second, requestBody: $1}
  /second:
    post:
      operationId: second
      requestBody:
        content: {application/json: {schema: {\$ref: '#/components/schemas/Thing'}}}
      responses: {'204': {description: Done.}}
components:
  schemas:
    Thing: {type: object, properties: {id: {type: string}}}
END
}
contract "{id: '\$response.body#/id'}" > object.yaml
contract "'{\"id\": \"{\$response.body#/id}\"}'" > string.yaml

generates() { tools/bin/openapi-generator-cli generate -i "$1.yaml" -g python -o "$1" > "$1.log" 2>&1; }
of_object=yes; generates object || of_object=no
of_string=yes; generates string || of_string=no
grep 'requestBody is not' object.log || true
echo "a client with an object as body: $of_object; with a string: $of_string"
[ $of_object = no ] && [ $of_string = yes ] || { echo "openapi-generator behaves differently now" >&2; exit 1; }
