/* The smallest guest under Xen that shows that it ran: a PVH kernel that says one line by port 0xE9, which Xen puts on its own
   console, and halts for ever. It needs no disk, no network and 4 MiB. */
	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	mov	$line, %esi
next:	lodsb
	test	%al, %al
	jz	done
	out	%al, $0xe9
	jmp	next
done:	sti				/* with interrupts off a halt would be the end of the domain */
	hlt
	jmp	done

	.section .rodata
line:	.asciz "xenspan: the tiny guest runs\n"
