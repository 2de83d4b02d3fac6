/**
 * A shell function's body that prints the keys below `streams:` or `stores:` (`$1`) of the config file `$2`: of one written in
 * blocks, as `config example` is. Asking Shipmate itself would take a quarter of a second at each press of a key.
 */
export const NAMES_AWK = `awk -v section="$1" '
    /^[^ #]/ { inside = ($0 ~ "^" section ":"); indent = 0; next }
    inside && match($0, /^ +[a-z0-9][a-z0-9._-]*:/) {
      match($0, /^ +/)
      if (!indent) indent = RLENGTH
      if (RLENGTH == indent) { sub(/^ +/, ""); sub(/:.*/, ""); print }
    }' "$2" 2>/dev/null`;
