# The shell proxy's agent: runs inside the guest and obeys one line of the host at a time.
#
# Needs a POSIX sh (dash, bash, busybox ash), cat, ls, and /proc; uses setsid where there is one. It is
# sent without comments and indentation. Protocol, descriptors and reasons: see agent.rs.
#
# K is the session's secret: never exported, in an argument list, or in a command's memory.
K=@KEY@
unset a l n
set -f
exec 8<&0 9>&1 2>/dev/null
s=$(command -v setsid)
# By its path: the setsid of some busybox takes its own shell for `sh`, and that its own `ip`.
h=$(command -v sh)
# Where the output of background commands is kept; made when there is some.
for d in /dev/shm /run /tmp /var/tmp ''; do
	[ -n "$d" ] && [ -w "$d" ] && d=$d/.tapestry-@NAME@ && break
done

# A frame of the session.
f() { printf '\036%s %s\037' "$K" "$1" >&9; }

# What the process of a command runs. It takes the command's pieces and, when told to, becomes it.
# The opening key is spent once the start is told. It joins the outputs itself, because a
# shell that did it from outside would add "Killed" to them. When a child ends, busybox forgets what
# it has read of a line; so there, what the agent must learn is said more often (v) than the agent
# has children. $1 is that key, $2 c and the number, $3 v.
# r LENGTH TEXT: all of a command, to start. c INDEX TEXT: a piece. Empty, or g LENGTHS: start.
# x: do not. k, p: as below.
# Until then its input and output are the console: a redirection in the released path costs time.
g='o=$1 n=$2 v=$3 a= c= j=0 t=0 s=
exec 7>&1 <&8 >&9
f() { printf "\036%s %s\037" $o "$1"; }
for i in $v; do echo "$n p$$ $PPID"; done >&3
f armed
d() {
c=$p
case $p in
*\\*) c=$(printf %b. "$p") && c=${c%.} ;;
esac
}
while IFS= read -r l; do
case $l in
"") f "start $$"; c=$a s=1; break ;;
"r "*)
p=${l#r }
i=${p%% *}
p=${p#* }
[ $i -eq ${#p} ] && d && s=1 && f "start $$" && break
f huh ;;
"c "*)
p=${l#c }
i=${p%% *}
p=${p#* }
[ $i = 0 ] && a= j=0 t=0
if [ $i = $j ]; then
d
a=$a$c j=$((j+1)) t=$((t+${#l}))
fi
f "ack $i ${#l}" ;;
"g $t") f "start $$"; c=$a s=1; break ;;
x) break ;;
"k "*) set -- $l; kill -$2 -$3 || kill -$2 $3 ;;
p) f pong ;;
*) f huh ;;
esac
done
for i in $v; do echo $n; done >&3
[ $s ] || exit 125
exec >&7 2>&1 3>&- 7>&- 8<&- 9>&- </dev/null
unset -f f d
set --
eval "unset o n j t s l p i c a v
$c"'

# Ends the last command's relay if it did not end with the command: then a background job still
# holds the pipe, and from now on writes into the void.
settle() {
	[ -n "$k" ] || return
	[ -e /proc/$k/fd/0 ] && { kill -9 $k; cat <&4 >/dev/null 3>&- 8<&- 9>&- & } 4</proc/$k/fd/0
	wait $k
	k=
}

# Waits until the word $1 is said: c and the number of a command that was started or died, so that only
# its process reads the console. Notes processes (u, and w that waits for it) and statuses (r, of q) on the way. What is said
# when a command starts is short: each byte is read by itself, and the command waits meanwhile.
hand() {
	while read -r x y <&3; do
		case $y in
		p*) w=${y#* } u=${y% *} u=${u#p} && continue ;;
		?*) r=$y q=$x ;;
		esac
		[ "$x" = "$1" ] && break
	done
}

k= r= q= u= w= m=0 z=0 v=1
case $(ls -l /proc/$$/exe) in *busybox*) v="1 2 3 4" ;; esac
# The left side only makes a pipe: descriptor 3 becomes both its ends, for the agent's own use.
: | {
	exec 3<>/proc/self/fd/0 0<&8
	trap 'rm -rf "$d"; exit' HUP TERM
	# The relay may end between the opening of its pipe and the writing of a frame (q).
	trap : PIPE
	f "ready ${d:--} ${s:--}"
	while IFS= read -r l; do
		case $l in
		# a NUMBER OPEN CLOSE: make the process of a command in the foreground.
		"a "*)
			set -- $l
			settle
			m=$2
			{
				$s $h -c "$g" sh "$3" "c$2" "$v"
				r=$?
				printf '\036%s end %s\037' "$4" $r
				echo "c$2 $r" >&3
			} | cat >&9 3>&- 8<&- &
			k=$!
			hand "c$2"
			;;
		# b NUMBER OPEN CLOSE: the same in the background, its output kept in a file.
		"b "*)
			set -- $l
			m=$2
			[ -d "$d" ] || mkdir -m 700 "$d"
			true >"$d/$2"
			{
				$s $h -c "$g" sh "$3" "c$2" "$v"
				r=$?
				printf '\036%s end %s\037' "$4" $r
				echo "c$2 $r" >&3
				f "gone $2 $r"
			} | {
				exec 3>&- 8<&- 9>&-
				trap '' XFSZ
				ulimit -f @BLOCKS@
				cat >"$d/$2"
				cat >/dev/null
			} &
			hand "c$2"
			;;
		# q NUMBER CLOSE: say again how the command ended, behind the output still on its way.
		"q "*)
			set -- $l
			z=$((z+1))
			for i in $v; do echo "q$z"; done >&3
			hand "q$z"
			# Nobody is left to tell of a command that killed its parent: it counts as killed, too.
			[ -e /proc/$w/fd/0 ] || [ -e /proc/$u ] || [ "$q" = "c$2" ] || { q=c$2 r=137; }
			if [ "$m" != "$2" ]; then
				f "never $2"
			elif [ "$q" != "c$2" ]; then
				f "busy $2 $u"
			else
				printf '\036%s end %s\037' "$3" "$r" >/proc/$k/fd/0 ||
					printf '\036%s end %s\037' "$3" "$r" >&9
			fi
			;;
		# k SIGNAL PROCESS: signal a command's session.
		"k "*)
			set -- $l
			kill -$2 -$3 || kill -$2 $3
			;;
		# p: are you there?
		p) f pong ;;
		x | "r "*) ;;
		*) f "huh" ;;
		esac
	done
	[ -n "$d" ] && rm -rf "$d"
}
